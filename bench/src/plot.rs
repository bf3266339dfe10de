//! Lines in a coordinate system, as SVG: enough for a few curves that must be told apart.

use std::fmt::Write as _;

/// A curve.
pub struct Series<'a> {
    /// For the legend.
    pub name: &'a str,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
    /// Whether it is calculated and not measured.
    pub dashed: bool,
    /// Which colour: the same number, the same colour.
    pub colour: usize,
}

/// Colours that people with any kind of colour vision can tell apart (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The picture, and the part of it that is for the curves, in pixels.
const SIZE: (f64, f64) = (780.0, 380.0);
const LEFT: f64 = 64.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 54.0;
const BOTTOM: f64 = 48.0;

/// Draws curves. `x` and `y` name the axes, with their units; both begin at 0.
pub fn lines(title: &str, x: &str, y: &str, series: &[Series<'_>]) -> String {
    let points = || series.iter().flat_map(|s| &s.points);
    let most = |values: &mut dyn Iterator<Item = f64>| values.filter(|v| v.is_finite()).fold(0.0, f64::max);
    let (x_step, x_end) = ticks(most(&mut points().map(|p| p.0)));
    let (y_step, y_end) = ticks(most(&mut points().map(|p| p.1)));
    let across = |v: f64| LEFT + v / x_end * (SIZE.0 - LEFT - RIGHT);
    let down = |v: f64| SIZE.1 - BOTTOM - v / y_end * (SIZE.1 - TOP - BOTTOM);

    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>\n",
        SIZE.0,
        SIZE.1,
        escaped(title)
    );
    let mut text = |x: f64, y: f64, anchor: &str, content: &str| {
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#444\">{}</text>",
            escaped(content)
        );
    };
    for (end, step, vertical) in [(x_end, x_step, false), (y_end, y_step, true)] {
        for i in 0..=(end / step).round() as u32 {
            let value = f64::from(i) * step;
            match vertical {
                true => text(LEFT - 6.0, down(value) + 4.0, "end", &short(value)),
                false => text(across(value), SIZE.1 - BOTTOM + 16.0, "middle", &short(value)),
            }
        }
    }
    text((LEFT + SIZE.0 - RIGHT) / 2.0, SIZE.1 - 10.0, "middle", x);
    text(LEFT, TOP - 14.0, "start", y);
    for (i, series) in series.iter().enumerate() {
        text(SIZE.0 - RIGHT + 34.0, TOP + 12.0 + 18.0 * i as f64, "start", series.name);
    }
    for i in 0..=(y_end / y_step).round() as u32 {
        let at = down(f64::from(i) * y_step);
        let end = across(x_end);
        let _ = writeln!(out, "<path d=\"M{LEFT} {at:.1}H{end:.1}\" stroke=\"#ddd\"/>");
    }
    for (i, series) in series.iter().enumerate() {
        let style = format!(
            "fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\"{}",
            COLOURS[series.colour % COLOURS.len()],
            if series.dashed { " stroke-dasharray=\"5 3\"" } else { "" }
        );
        let (from, at) = (SIZE.0 - RIGHT + 8.0, TOP + 8.0 + 18.0 * i as f64);
        let _ = writeln!(out, "<path d=\"M{from} {at}h20\" {style}/>");
        let mut path = String::new();
        for (x, y) in series.points.iter().filter(|p| p.0.is_finite() && p.1.is_finite()) {
            let letter = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", across(*x), down(*y));
        }
        let _ = writeln!(out, "<path d=\"{path}\" {style}/>");
    }
    out + "</svg>\n"
}

/// A step and an end for an axis that shows 0 to `most`: about five steps of 1, 2 or 5 times a power of ten.
fn ticks(most: f64) -> (f64, f64) {
    let most = if most > 0.0 { most } else { 1.0 };
    let power = 10f64.powf((most / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|s| most / s <= 5.0).unwrap_or(most);
    (step, (most / step).ceil() * step)
}

fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The part of `values` that is at most so large, as a curve: for seeing how something is spread.
pub fn distribution(values: impl IntoIterator<Item = f64>) -> Vec<(f64, f64)> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let n = values.len().max(1) as f64;
    let mut out = vec![(0.0, 0.0)];
    for (i, value) in values.iter().enumerate() {
        out.push((*value, i as f64 / n));
        out.push((*value, (i + 1) as f64 / n));
    }
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_or_after_the_largest_value_in_round_steps() {
        assert_eq!(ticks(100.0), (20.0, 100.0));
        assert_eq!(ticks(101.0), (50.0, 150.0));
        assert_eq!(ticks(0.0), (0.2, 1.0));
        let (step, end) = ticks(0.0034);
        assert!((step - 0.001).abs() < 1e-12 && end >= 0.0034, "{step} {end}");
        assert_eq!((short(0.25), short(150.0), short(0.0)), ("0.25".into(), "150".into(), "0".into()));
    }

    #[test]
    fn a_plot_is_well_formed_and_has_a_line_for_each_series() {
        let series = |dashed| Series { name: "a<b", points: vec![(0.0, 1.0), (2.0, 3.0)], dashed, colour: 0 };
        let svg = lines("A & B", "seconds", "Mbit/s", &[series(false), series(true)]);
        assert!(svg.contains("A &amp; B") && svg.contains("a&lt;b") && !svg.contains("NaN"), "{svg}");
        assert_eq!(svg.matches("stroke-dasharray").count(), 2); // in the legend and in the plot
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn a_distribution_ends_at_the_largest_value_and_at_all_of_them() {
        assert_eq!(distribution([3.0, 1.0]), [(0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (3.0, 0.5), (3.0, 1.0)]);
    }
}
