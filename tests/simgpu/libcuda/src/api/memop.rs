//! Stream memory operations.
#![allow(non_snake_case, reason = "the names are those of the driver API")]

use core::ffi::c_uint;

use headgate_abi::cuda::symbols::ThreadMode;
use headgate_abi::cuda::types::{
    CU_STREAM_MEM_OP_BARRIER, CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES, CU_STREAM_MEM_OP_WAIT_VALUE_32,
    CU_STREAM_MEM_OP_WAIT_VALUE_64, CU_STREAM_MEM_OP_WRITE_VALUE_32, CU_STREAM_MEM_OP_WRITE_VALUE_64,
    CU_STREAM_WAIT_VALUE_AND, CU_STREAM_WAIT_VALUE_EQ, CU_STREAM_WAIT_VALUE_GEQ, CU_STREAM_WAIT_VALUE_NOR,
    CUdeviceptr, CUresult, CUstream, CUstreamBatchMemOpParams,
};
use headgate_simgpu::model::{Condition, Width};
use headgate_simgpu::protocol::{Command, Place};

use super::memory::device_range;
use super::{host, twins};
use crate::driver::{Answer, Driver, driver};
use crate::{current, raw};

/// `CU_STREAM_WAIT_VALUE_FLUSH`: a cache hint without meaning here.
const WAIT_FLUSH: c_uint = 1 << 30;
/// Most operations of one batch, as the driver documents it.
const BATCH_MAX: c_uint = 256;

/// The word an operation works on: device memory, or host memory that was pinned.
fn word(driver: &Driver, address: u64, width: Width) -> Result<Place, CUresult> {
    let bytes = width.bytes() as u64;
    if !address.is_multiple_of(bytes) {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    if host::is_pinned(driver, address, bytes) {
        return Ok(Place::Host(address));
    }
    device_range(driver, address, bytes)
}

fn wait(driver: &Driver, address: u64, value: u64, width: Width, flags: c_uint) -> Result<Command, CUresult> {
    let condition = match flags & !WAIT_FLUSH {
        CU_STREAM_WAIT_VALUE_GEQ => Condition::AtLeast,
        CU_STREAM_WAIT_VALUE_EQ => Condition::Equal,
        CU_STREAM_WAIT_VALUE_AND => Condition::And,
        CU_STREAM_WAIT_VALUE_NOR => Condition::Nor,
        _ => return Err(CUresult::ERROR_INVALID_VALUE),
    };
    Ok(Command::WaitValue { at: word(driver, address, width)?, value, width, condition })
}

fn write(
    driver: &Driver,
    address: u64,
    value: u64,
    width: Width,
    flags: c_uint,
) -> Result<Command, CUresult> {
    // CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER changes nothing on a device that does one thing at a time.
    if flags > 1 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    Ok(Command::WriteValue { at: word(driver, address, width)?, value, width })
}

fn submit(
    mode: ThreadMode,
    stream: CUstream,
    commands: impl FnOnce(&Driver) -> Result<Vec<Command>, CUresult>,
) -> Answer {
    let driver = driver()?;
    let context = current::context(driver)?;
    let stream = current::stream(driver, &context, stream, mode)?;
    let commands = commands(driver)?;
    driver.submit(&stream, commands).map(|_| ())
}

fn wait_32(mode: ThreadMode, stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) -> Answer {
    submit(mode, stream, |driver| Ok(vec![wait(driver, addr, value.into(), Width::Word, flags)?]))
}

fn wait_64(mode: ThreadMode, stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) -> Answer {
    submit(mode, stream, |driver| Ok(vec![wait(driver, addr, value, Width::Double, flags)?]))
}

fn write_32(mode: ThreadMode, stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) -> Answer {
    submit(mode, stream, |driver| Ok(vec![write(driver, addr, value.into(), Width::Word, flags)?]))
}

fn write_64(mode: ThreadMode, stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) -> Answer {
    submit(mode, stream, |driver| Ok(vec![write(driver, addr, value, Width::Double, flags)?]))
}

/// All operations are checked before the first is handed in, so a refused batch does nothing.
fn batch(
    mode: ThreadMode,
    stream: CUstream,
    count: c_uint,
    ops: *mut CUstreamBatchMemOpParams,
    flags: c_uint,
) -> Answer {
    submit(mode, stream, |driver| commands(driver, count, ops, flags))
}

/// The commands of a batch.
pub(crate) fn commands(
    driver: &Driver,
    count: c_uint,
    ops: *mut CUstreamBatchMemOpParams,
    flags: c_uint,
) -> Result<Vec<Command>, CUresult> {
    if count == 0 || count > BATCH_MAX || flags != 0 {
        return Err(CUresult::ERROR_INVALID_VALUE);
    }
    (0..count as usize)
        .map(|index| {
            let op = raw::load_at(ops.cast_const(), index)?;
            let low = op.value & u64::from(u32::MAX);
            match op.operation {
                CU_STREAM_MEM_OP_WAIT_VALUE_32 => wait(driver, op.address, low, Width::Word, op.flags),
                CU_STREAM_MEM_OP_WAIT_VALUE_64 => wait(driver, op.address, op.value, Width::Double, op.flags),
                CU_STREAM_MEM_OP_WRITE_VALUE_32 => write(driver, op.address, low, Width::Word, op.flags),
                CU_STREAM_MEM_OP_WRITE_VALUE_64 => {
                    write(driver, op.address, op.value, Width::Double, op.flags)
                }
                CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES | CU_STREAM_MEM_OP_BARRIER => Ok(Command::Nothing),
                _ => Err(CUresult::ERROR_INVALID_VALUE),
            }
        })
        .collect()
}

twins! {
    cuStreamWaitValue32_v2, cuStreamWaitValue32_v2_ptsz (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) = wait_32;
    cuStreamWaitValue64_v2, cuStreamWaitValue64_v2_ptsz (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) = wait_64;
    cuStreamWriteValue32_v2, cuStreamWriteValue32_v2_ptsz (stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint) = write_32;
    cuStreamWriteValue64_v2, cuStreamWriteValue64_v2_ptsz (stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint) = write_64;
    cuStreamBatchMemOp_v2, cuStreamBatchMemOp_v2_ptsz (stream: CUstream, count: c_uint, ops: *mut CUstreamBatchMemOpParams, flags: c_uint) = batch;
}
