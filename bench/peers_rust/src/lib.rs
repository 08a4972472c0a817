//! A job that returns its argument, awaited through pyo3-async-runtimes: for `bench/peers.py`.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3_async_runtimes::tokio::{future_into_py, get_runtime, init};

/// Choose the number of tokio's threads, of both kinds; before anything else is called.
#[pyfunction]
fn configure(workers: usize) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(workers).max_blocking_threads(workers);
    init(builder);
}

/// Run on one of the runtime's own threads, as asynchronous Rust does.
#[pyfunction]
fn echo(py: Python<'_>, x: i64) -> PyResult<Bound<'_, PyAny>> {
    future_into_py(py, async move { Ok(x) })
}

/// Run on a thread that may block, as Rust that computes should.
#[pyfunction]
fn echo_blocking(py: Python<'_>, x: i64) -> PyResult<Bound<'_, PyAny>> {
    future_into_py(py, async move {
        get_runtime()
            .spawn_blocking(move || x)
            .await
            .map_err(|error| PyRuntimeError::new_err(error.to_string()))
    })
}

#[pymodule]
fn offgil_peers_rust(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(configure, m)?)?;
    m.add_function(wrap_pyfunction!(echo, m)?)?;
    m.add_function(wrap_pyfunction!(echo_blocking, m)?)
}
