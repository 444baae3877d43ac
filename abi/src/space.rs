//! Sharing by space: what a program has to find in its environment, and which groups of SMs its work keeps to.
//!
//! NVIDIA's MPS takes what it has to know from the environment. `headgate run` sets it, as the daemon says. A tenant could set it
//! otherwise, so the daemon also puts a digest of it into the limits, which the tenant can only read, and the hook compares
//! before CUDA starts.
//!
//! Where green contexts share the device the limits say the tenant's place, and the seat which groups of SMs lie there: how
//! many groups a device has, only its driver knows.

use headgate_quota::Ppm;
use headgate_quota::groups::Place;

/// The variables that decide a client's part of a device, in the order of the digest.
pub const VARIABLES: [&str; 4] = [
    "CUDA_MPS_PIPE_DIRECTORY",
    "CUDA_MPS_SM_PARTITION",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
    "CUDA_MPS_ENABLE_PER_CTX_DEVICE_MULTIPROCESSOR_PARTITIONING",
];

/// Digest of these variables' values, an empty one being as none; never zero, which says that nothing is asked. It is no
/// signature: who can write the environment could not write the digest, and that is all it needs.
#[must_use]
pub fn digest(mut value: impl FnMut(&'static str) -> Option<Vec<u8>>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |digest: u64, byte: u8| (digest ^ u64::from(byte)).wrapping_mul(PRIME);
    let digest = VARIABLES.iter().fold(OFFSET, |digest, name| {
        let value = value(name).filter(|value| !value.is_empty());
        // No value of an environment holds a NUL, so none can pass for two.
        step(value.into_iter().flatten().fold(digest, step), 0)
    });
    digest.max(1)
}

/// The word in the limits for a tenant's place, and for a tenant that has none: no program of it may make a context.
#[must_use]
pub fn place_word(place: Option<Place>) -> u64 {
    place.map_or(NO_PLACE, |place| u64::from(place.to().get()) << 32 | u64::from(place.from().get()))
}

/// No point of a device, so that it can be nobody's place.
const NO_PLACE: u64 = u64::MAX;

/// What [`place_word`] says. `None` where the device is not shared so; a word that is nobody's place is no place.
#[must_use]
pub fn place_of(word: u64) -> Option<Option<Place>> {
    let ppm = |half: u64| u32::try_from(half & u64::from(u32::MAX)).ok().and_then(Ppm::new);
    (word != 0).then(|| Place::new(ppm(word)?, ppm(word >> 32)?))
}

/// What a process says of a device, in its seat.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Part {
    /// Its work keeps to these groups.
    Groups {
        /// The first of them.
        first: u16,
        /// How many.
        count: u16,
        /// SMs they have.
        sms: u16,
        /// SMs of the device.
        of: u16,
    },
    /// Its driver has no green contexts.
    Unavailable,
    /// It keeps to none: it had a context before the device was shared so.
    Outside,
    /// It would keep to its tenant's groups, and has no context there now.
    Nothing,
}

impl Part {
    const UNAVAILABLE: u64 = u64::MAX;
    const OUTSIDE: u64 = u64::MAX - 1;
    const NOTHING: u64 = u64::MAX - 2;

    /// The word for it, never zero.
    #[must_use]
    pub fn word(self) -> u64 {
        match self {
            Self::Groups { first, count, sms, of } => {
                u64::from(of) << 48 | u64::from(sms) << 32 | u64::from(count) << 16 | u64::from(first)
            }
            Self::Unavailable => Self::UNAVAILABLE,
            Self::Outside => Self::OUTSIDE,
            Self::Nothing => Self::NOTHING,
        }
    }

    /// What a word says. `None` for zero; what cannot be counts as no part at all.
    #[must_use]
    pub fn of_word(word: u64) -> Option<Self> {
        let [first, count, sms, of] =
            [0, 16, 32, 48].map(|shift| u16::try_from(word >> shift & 0xffff).unwrap_or(0));
        match word {
            0 => None,
            Self::UNAVAILABLE => Some(Self::Unavailable),
            Self::OUTSIDE => Some(Self::Outside),
            Self::NOTHING => Some(Self::Nothing),
            _ if count == 0 || sms == 0 || of < sms || sms < count => Some(Self::Outside),
            _ => Some(Self::Groups { first, count, sms, of }),
        }
    }

    /// The part of the device that it is: all of it, where it keeps to no groups.
    #[must_use]
    pub fn fraction(self) -> Ppm {
        let (sms, of) = match self {
            Self::Groups { sms, of, .. } => (sms, of),
            Self::Nothing => return Ppm::ZERO,
            Self::Unavailable | Self::Outside => return Ppm::WHOLE,
        };
        let ppm = (u64::from(sms) * u64::from(Ppm::WHOLE.get())).checked_div(of.into());
        ppm.and_then(|ppm| u32::try_from(ppm).ok()).and_then(Ppm::new).unwrap_or(Ppm::WHOLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_parts_survive_their_words_and_nonsense_is_none() {
        let place = Place::new(Ppm::ZERO, Ppm::from_percent(70).unwrap_or(Ppm::WHOLE));
        assert!(place.is_some());
        assert_eq!(place_of(place_word(place)), Some(place));
        assert_eq!(place_of(0), None);
        for no_place in [place_word(None), 5, 7 << 32 | 9, 2_000_000 << 32] {
            assert_eq!(place_of(no_place), Some(None), "{no_place:x}");
        }
        let part = Part::Groups { first: 11, count: 5, sms: 40, of: 132 };
        for part in [part, Part::Unavailable, Part::Outside, Part::Nothing] {
            assert_eq!(Part::of_word(part.word()), Some(part));
        }
        assert_eq!(part.fraction().get(), 303_030);
        assert_eq!(Part::Outside.fraction(), Ppm::WHOLE);
        assert_eq!(Part::of_word(0), None);
        // More SMs than the device has, groups without SMs, SMs without groups.
        for nonsense in [1 << 48 | 2 << 32 | 1 << 16, 9 << 48 | 1 << 16, 9 << 48 | 4 << 32] {
            assert_eq!(Part::of_word(nonsense), Some(Part::Outside), "{nonsense:x}");
        }
    }

    fn of(values: [Option<&str>; 4]) -> u64 {
        digest(|name| {
            let at = VARIABLES.iter().position(|known| *known == name)?;
            values[at].map(|value| value.as_bytes().to_vec())
        })
    }

    #[test]
    fn every_variable_counts_and_none_passes_for_another() {
        let whole = of([Some("/run/mps"), Some("GPU-1/a"), None, None]);
        assert_ne!(whole, of([Some("/run/mps"), Some("GPU-1/b"), None, None]));
        assert_ne!(whole, of([Some("/run/mp"), Some("sGPU-1/a"), None, None]));
        assert_ne!(whole, of([Some("/run/mps"), None, Some("GPU-1/a"), None]));
        assert_ne!(whole, of([Some("/run/mps"), Some("GPU-1/a"), None, Some("1")]));
        assert_eq!(whole, of([Some("/run/mps"), Some("GPU-1/a"), Some(""), None]));
        assert_ne!(of([None; 4]), 0);
    }
}
