//! Just enough HTTP/1.1 to be a server: requests in, responses out. RFC 9110 and 9112 as far as our clients go.

use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, `HEAD`, `POST` …
    pub method: String,
    /// Path as asked for, with its leading `/` and still percent-encoded.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, if it had one.
    pub body: Vec<u8>,
}

impl Request {
    /// Reads the next request of a connection; `None` at its end.
    ///
    /// # Errors
    /// If the connection breaks or what comes is not HTTP.
    pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Err(bad("no request line"));
        };
        let mut request = Request { method: method.to_owned(), path: path.to_owned(), ..Request::default() };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad("no header"))?;
            request.headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        if let Some(length) = request.header("content-length") {
            let length: u64 = length.parse().map_err(|_| bad("no length"))?;
            reader.take(length).read_to_end(&mut request.body)?;
        } else if request.header("transfer-encoding").is_some() {
            request.body = read_chunked(reader)?;
        }
        Ok(Some(request))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The one range that was asked for: first byte, and last byte if it was said.
    pub fn range(&self) -> Option<(u64, Option<u64>)> {
        let (from, to) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse().ok()?, to.parse().ok()))
    }
}

fn read_chunked(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no chunk size"))?;
        reader.take(size).read_to_end(&mut body)?;
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Writes the head of a response.
///
/// # Errors
/// Those of the connection.
pub fn write_head(stream: &mut TcpStream, status: u16, headers: &[(&str, String)]) -> io::Result<()> {
    let reason = match status {
        200 => "OK",
        202 => "Accepted",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        410 => "Gone",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "-",
    };
    let mut head = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_a_range_and_one_with_a_body_are_read_one_after_the_other() {
        let bytes = b"GET /a?b HTTP/1.1\r\nHost: x\r\nRange: bytes=5-\r\n\r\n\
                      POST /r HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi\
                      POST /r HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        let mut reader = io::BufReader::new(&bytes[..]);
        let get = Request::read(&mut reader).unwrap().unwrap();
        assert_eq!((get.path.as_str(), get.range()), ("/a?b", Some((5, None))));
        assert_eq!(Request::read(&mut reader).unwrap().unwrap().body, b"hi");
        assert_eq!(Request::read(&mut reader).unwrap().unwrap().body, b"hi");
        assert!(Request::read(&mut reader).unwrap().is_none());
    }
}
