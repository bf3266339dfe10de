//! A small real Kubernetes API server: Kubernetes' own apiextensions-apiserver (`scripts/kube-apiserver.sh` builds it) over
//! etcd, both on loopback; asked with curl. It serves CustomResourceDefinitions and what they define, and nothing else of
//! Kubernetes: no namespaces, no roles, no controllers.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::sandbox::{Sandbox, command, run};
use crate::services::{Authority, Service};
use crate::wait::until;

/// It needs some seconds to begin, on a busy machine more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Plugins of the whole of Kubernetes, which need what is not there.
const WITHOUT: &str = "NamespaceLifecycle,MutatingAdmissionWebhook,ValidatingAdmissionWebhook";

/// A running one.
pub struct KubeApi {
    /// What a client is configured with, as kubectl reads it: of an administrator.
    pub kubeconfig: PathBuf,
    url: String,
    authority: Authority,
    admin: (PathBuf, PathBuf),
    _server: Service,
    _etcd: Service,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status code.
    pub code: u16,
    /// Its body.
    pub body: Value,
}

impl KubeApi {
    /// Starts `program`, which is an apiextensions-apiserver.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(sandbox: &Sandbox, program: &str) -> KubeApi {
        let folder = sandbox.path().join("kube");
        let authority = Authority::new(sandbox, "kube-authority");
        let (certificate, key) = authority.issue("server");
        let admin = authority.issue_to("admin", "/O=system:masters/CN=admin");
        let peers = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
        let etcd = Service::start(&folder.join("etcd"), |port| {
            let mut etcd = command("etcd");
            etcd.arg("--data-dir").arg(folder.join("etcd/data"));
            for what in ["listen-client-urls", "advertise-client-urls"] {
                etcd.arg(format!("--{what}=http://127.0.0.1:{port}"));
            }
            etcd.arg(format!("--listen-peer-urls=http://{peers}"));
            etcd
        });
        let kubeconfig = folder.join("kubeconfig");
        let server = Service::start(&folder, |port| {
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: it\n\
                 clusters: [{{name: it, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority: {:?}}}}}]\n\
                 users: [{{name: it, user: {{client-certificate: {:?}, client-key: {:?}}}}}]\n\
                 contexts: [{{name: it, context: {{cluster: it, user: it}}}}]\n",
                authority.certificate(),
                admin.0,
                admin.1,
            );
            fs::write(&kubeconfig, text).expect("a configuration");
            let mut server = command(program);
            server
                .arg(format!("--etcd-servers=http://127.0.0.1:{}", etcd.port()))
                .arg(format!("--secure-port={port}"))
                .args(["--bind-address=127.0.0.1", "--authentication-skip-lookup"])
                .arg(format!("--disable-admission-plugins={WITHOUT}"));
            for what in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
                server.arg(format!("--{what}")).arg(&kubeconfig);
            }
            for (what, file) in [
                ("tls-cert-file", &certificate),
                ("tls-private-key-file", &key),
                ("client-ca-file", &authority.certificate()),
            ] {
                server.arg(format!("--{what}")).arg(file);
            }
            server
        });
        let url = format!("https://127.0.0.1:{}", server.port());
        KubeApi { kubeconfig, url, authority, admin, _server: server, _etcd: etcd }
    }

    /// Asks; `body`: its media type and content.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn ask(&self, method: &str, path: &str, accept: &str, body: Option<(&str, &str)>) -> Answer {
        let mut curl = command("curl");
        curl.args(["--silent", "--show-error", "--max-time", "30", "--write-out", "\n%{http_code}"]);
        curl.arg("--cacert").arg(self.authority.certificate());
        curl.arg("--cert").arg(&self.admin.0).arg("--key").arg(&self.admin.1);
        curl.args(["--request", method, "--header", &format!("Accept: {accept}")]);
        if let Some((media, content)) = body {
            curl.args(["--header", &format!("Content-Type: {media}"), "--data-binary", content]);
        }
        let said = run(curl.arg(format!("{}{path}", self.url))).expect(0).stdout;
        let (body, code) = said.rsplit_once('\n').expect("curl says the code");
        let code = code.parse().expect("a status code");
        Answer { code, body: serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.into())) }
    }

    /// Creates an object out of YAML.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn create(&self, path: &str, yaml: &str) -> Answer {
        self.ask("POST", path, "application/json", Some(("application/yaml", yaml)))
    }

    /// Has custom resources defined, and waits until they are served.
    ///
    /// # Panics
    /// If they are not accepted.
    pub fn define(&self, definition: &str, served: &str) {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        // It listens a moment before it answers.
        until("the definition is accepted", PATIENCE, || {
            let answer = self.create(path, definition);
            assert!(![400, 415, 422].contains(&answer.code), "{answer:?}");
            [201, 409].contains(&answer.code)
        });
        until("what it defines is served", PATIENCE, || {
            self.ask("GET", served, "application/json", None).code == 200
        });
    }
}
