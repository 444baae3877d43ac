//! Which pool a device's stream-ordered memory comes from.

use headgate_abi::cuda::remote::Kind;
use headgate_abi::cuda::symbols::Symbol;
use headgate_abi::cuda::types::{CUdevice, CUmemoryPool, CUresult};

use super::device;
use crate::client::objects::lock;
use crate::client::state::{Client, client};
use crate::client::{Answer, raw, travel};
use crate::wire::operation::Operation;
use crate::word::Word as _;

/// The number of a device's default pool, asked for once.
fn default_pool(client: &Client, index: usize) -> Result<u32, CUresult> {
    let mut known = lock(&client.default_pools);
    if let Some(&pool) = known.get(&index) {
        return Ok(pool);
    }
    let pool = client.pools.number();
    let device = u32::try_from(index).map_err(|_| CUresult::ERROR_INVALID_DEVICE)?;
    match client.session.ask(0, &Operation::DefaultPool { device, pool })?.status {
        CUresult::SUCCESS => {
            known.insert(index, pool);
            Ok(pool)
        }
        status => Err(status),
    }
}

fn handle(client: &Client, pool: u32) -> CUmemoryPool {
    CUmemoryPool::from_addr(client.arena.handle(Kind::Pool, pool))
}

pub fn cuDeviceGetDefaultMemPool(pool: *mut CUmemoryPool, dev: CUdevice) -> Answer {
    let client = client()?;
    let index = device::index(client, dev)?;
    raw::store(pool, handle(client, default_pool(client, index)?))
}

pub fn cuDeviceGetMemPool(pool: *mut CUmemoryPool, dev: CUdevice) -> Answer {
    let client = client()?;
    let index = device::index(client, dev)?;
    let set = lock(&client.current_pools).get(&index).copied();
    let current = set.map_or_else(|| default_pool(client, index), Ok)?;
    raw::store(pool, handle(client, current))
}

pub fn cuDeviceSetMemPool(dev: CUdevice, pool: CUmemoryPool) -> Answer {
    let client = client()?;
    let index = device::index(client, dev)?;
    let symbol = Symbol::cuDeviceSetMemPool;
    let line = symbol.line().ok_or(CUresult::ERROR_NOT_SUPPORTED)?;
    travel::by_rule(client, symbol, line, &[dev.to_word(), pool.to_word()], None)?;
    if let Some(id) = client.arena.id(Kind::Pool, pool.addr()) {
        lock(&client.current_pools).insert(index, id);
    }
    Ok(())
}
