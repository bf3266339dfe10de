//! A static file server with ranges, for trying things out; for a fleet, use one that is made for it.

use std::net::SocketAddr;
use std::path::Path;

use axum::Router;
use tower_http::services::ServeDir;

use crate::error::{AtPath, Error, Kind, Result};

/// Serves `folder` until the process is ended. Says where, on standard output, when it is ready.
///
/// # Errors
/// If the folder is not there or the address cannot be listened on.
pub fn serve(folder: &Path, listen: SocketAddr) -> Result<()> {
    let what = "the repository cannot be served";
    std::fs::read_dir(folder).at(what, folder)?;
    let failed = |e: std::io::Error| Error::new(Kind::Unavailable, what, format!("{listen}: {e}"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_io().build().map_err(failed)?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        println!("listening on http://{address}");
        let files = Router::new().fallback_service(ServeDir::new(folder));
        axum::serve(listener, files).await.map_err(failed)
    })
}
