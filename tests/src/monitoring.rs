//! node_exporter and Prometheus as a site has them, each on a port of its own, and what Prometheus then answers.
//! `make test-monitoring` installs them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::sandbox::{Sandbox, command, succeed};
use crate::services::Service;
use crate::wait::until;

/// The longest that an alert may take: many scrapes and evaluations.
const PATIENCE: Duration = Duration::from_secs(60);

/// node_exporter with its textfile collector alone.
pub struct NodeExporter(Service);

impl NodeExporter {
    /// Over a folder of *.prom files.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(sandbox: &Sandbox, textfiles: &Path) -> NodeExporter {
        NodeExporter(Service::start(&sandbox.path().join("node-exporter"), |port| {
            let mut exporter = command("/usr/bin/prometheus-node-exporter");
            exporter.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            exporter.args([
                "--collector.disable-defaults",
                "--collector.textfile",
                "--collector.textfile.directory",
            ]);
            exporter.arg(textfiles);
            exporter
        }))
    }
}

/// Prometheus, looking every half second.
pub struct Prometheus(Service);

impl Prometheus {
    /// With one node, and rules.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(sandbox: &Sandbox, node: &NodeExporter, rules: &Path) -> Prometheus {
        let folder = sandbox.path().join("prometheus");
        Prometheus(Service::start(&folder, |port| {
            let text = format!(
                "global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}\nrule_files: [{rules:?}]\n\
                 scrape_configs:\n- job_name: node\n  static_configs: [{{ targets: ['127.0.0.1:{}'] }}]\n",
                node.0.port()
            );
            fs::write(folder.join("prometheus.yml"), text).expect("a configuration");
            let mut prometheus = command("/usr/bin/prometheus");
            prometheus.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
            prometheus.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
            prometheus.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            prometheus
        }))
    }

    fn get(&self, what: &str, query: &str) -> Value {
        let mut curl = command("curl");
        curl.args(["--silent", "--get", "--data-urlencode", &format!("query={query}")]);
        curl.arg(format!("http://127.0.0.1:{}/api/v1/{what}", self.0.port()));
        serde_json::from_str(&succeed(&mut curl)).expect("Prometheus answers in JSON")
    }

    /// What a query yields now, a value for each series.
    ///
    /// # Panics
    /// If Prometheus refuses it.
    pub fn query(&self, query: &str) -> Vec<Value> {
        let answer = self.get("query", query);
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// The alerts that fire, by name.
    pub fn firing(&self) -> Vec<String> {
        let answer = self.get("alerts", "");
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|a| a["state"] == "firing");
        firing.filter_map(|a| a["labels"]["alertname"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until something is true.
    ///
    /// # Panics
    /// If it is not within a minute.
    #[track_caller]
    pub fn until(&self, what: &str, done: impl Fn(&Prometheus) -> bool) {
        until(what, PATIENCE, || done(self));
    }
}
