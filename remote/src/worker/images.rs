//! Images of code, by what they hash to.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::limits::IMAGES_KEPT_BYTES;
use crate::wire::Malformed;
use crate::wire::operation::Digest;

/// Zeros behind every image, so that a text without its terminator is not read over.
const ROOM: usize = 64;

/// Images that have come, and one on its way.
#[derive(Debug, Default)]
pub(super) struct Images {
    whole: HashMap<Digest, Arc<Vec<u8>>>,
    order: VecDeque<Digest>,
    kept_bytes: usize,
    coming: Option<(Digest, usize, Vec<u8>)>,
}

impl Images {
    /// Takes a piece. Pieces come one after the other.
    pub(super) fn piece(
        &mut self,
        digest: Digest,
        total: usize,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), Malformed> {
        if offset == 0 {
            self.coming = Some((digest, total, Vec::new()));
        }
        let Some((of, all, have)) = &mut self.coming else {
            return Err(Malformed::Misplaced("a piece of no image"));
        };
        if *of != digest || *all != total || have.len() != offset || have.len() + bytes.len() > total {
            return Err(Malformed::Misplaced("a piece of another image"));
        }
        have.extend_from_slice(bytes);
        if have.len() < total {
            return Ok(());
        }
        let Some((_, _, mut image)) = self.coming.take() else { return Ok(()) };
        if Digest::from(Sha256::digest(&image)) != digest {
            return Err(Malformed::Misplaced("an image that hashes to something else"));
        }
        image.resize(total + ROOM, 0);
        self.keep(digest, image);
        Ok(())
    }

    /// Keeps an image that was made here, and says what it hashes to.
    pub(super) fn add(&mut self, image: &[u8]) -> Digest {
        let digest = Digest::from(Sha256::digest(image));
        let mut kept = image.to_vec();
        kept.resize(image.len() + ROOM, 0);
        self.keep(digest, kept);
        digest
    }

    fn keep(&mut self, digest: Digest, image: Vec<u8>) {
        self.kept_bytes += image.len();
        if let Some(old) = self.whole.insert(digest, Arc::new(image)) {
            self.kept_bytes -= old.len();
        } else {
            self.order.push_back(digest);
        }
        while self.kept_bytes > IMAGES_KEPT_BYTES && self.order.len() > 1 {
            let Some(oldest) = self.order.pop_front() else { break };
            self.kept_bytes -= self.whole.remove(&oldest).map_or(0, |image| image.len());
        }
    }

    /// An image that has come and is still kept.
    pub(super) fn get(&self, digest: &Digest) -> Option<Arc<Vec<u8>>> {
        self.whole.get(digest).cloned()
    }

    /// The same, and how long it is.
    pub(super) fn with_length(&self, digest: &Digest) -> Option<(Arc<Vec<u8>>, usize)> {
        let image = self.get(digest)?;
        let length = image.len().saturating_sub(ROOM);
        Some((image, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hashes_right_is_kept() {
        let image = b"an image of code".to_vec();
        let digest = Digest::from(Sha256::digest(&image));
        let mut images = Images::default();
        assert!(images.piece(digest, image.len(), 3, &image[3..]).is_err(), "it must begin at its beginning");
        images.piece(digest, image.len(), 0, &image[..3]).unwrap();
        assert!(images.get(&digest).is_none(), "only in part");
        images.piece(digest, image.len(), 3, &image[3..]).unwrap();
        assert_eq!(&images.get(&digest).unwrap()[..image.len()], &image[..]);
        assert_eq!(images.with_length(&digest).unwrap().1, image.len());
        assert_eq!(images.add(&image), digest, "made here or sent, it is the same image");
        assert!(images.piece([0; 32], image.len(), 0, &image).is_err(), "another hash");
    }
}
