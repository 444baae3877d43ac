//! Whether this program is a client of the Multi-Process Service, as the environment and its control program say.

use std::os::unix::net::UnixStream;
use std::path::Path;

use headgate_abi::cuda::types::CUresult;
use headgate_simgpu::client::Connection;
use headgate_simgpu::protocol::MPS_SOCKET;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// "If the connection attempt fails, the program continues to run as it normally would without MPS."
pub(crate) fn join(connection: &mut Connection) -> Result<(), CUresult> {
    let Some(pipe) = variable("CUDA_MPS_PIPE_DIRECTORY") else { return Ok(()) };
    if UnixStream::connect(Path::new(&pipe).join(MPS_SOCKET)).is_err() {
        return Ok(());
    }
    let percentage = variable("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE");
    let percentage = percentage.map(|text| text.parse().map_err(|_| CUresult::ERROR_INVALID_VALUE));
    connection.join_mps(pipe, variable("CUDA_MPS_SM_PARTITION"), percentage.transpose()?)
}
