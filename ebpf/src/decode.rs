//! Where in a function a probe costs least.
//!
//! The kernel carries out a few instructions itself when a probe sits on them (`push`, one-byte and five-byte `nop`,
//! `jmp`, conditional ones too); every other one it single-steps in a copy, with an extra trap that costs many times the
//! probe. Compilers often put such an instruction behind ones that change nothing a probe looks at. So from the symbol,
//! instructions that leave the stack, memory and arguments alone are skipped until a cheap one is found.
//!
//! That is what it comes to in NVIDIA's own libraries: in 535, 550 and 555 every call of the driver API that has a probe
//! begins with `cmp` of a global with a constant, which is single-stepped, and the `je` behind it, ten bytes on, is not.
//!
//! At the site the stack pointer is still what the caller left. That makes it good for return probes too, which take the return
//! address from the top of the stack, and for the five-byte `nop`, which a kernel may turn into a call that writes
//! below the stack pointer: nothing lives there yet.

/// A place in a function, relative to its symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Bytes from the symbol.
    pub(crate) offset: usize,
    /// Whether the kernel needs no single step there.
    pub(crate) cheap: bool,
}

/// The cheapest place at the head of an x86-64 function; the symbol itself if there is no cheap one.
pub(crate) fn cheapest_place(code: &[u8]) -> Place {
    let mut offset = 0;
    while let Some(rest) = code.get(offset..) {
        match instruction(rest) {
            Instruction::Cheap => return Place { offset, cheap: true },
            Instruction::Harmless(length) => offset += length,
            Instruction::Other => break,
        }
    }
    Place { offset: 0, cheap: false }
}

enum Instruction {
    /// Carried out by the kernel itself.
    Cheap,
    /// Changes neither stack, memory nor arguments; this many bytes long.
    Harmless(usize),
    /// Anything else, or not enough bytes to tell.
    Other,
}

/// The operands of `cmp` with a constant, `/7`, of what lies at an address relative to the instruction.
const CMP_GLOBAL: u8 = 0x3d;

fn instruction(code: &[u8]) -> Instruction {
    match code {
        // push r64, with and without REX.B; nop; nop dword [rax+rax+0]; jmp rel8; jmp rel32; jcc rel8; jcc rel32
        [0x50..=0x57, ..]
        | [0x41, 0x50..=0x57, ..]
        | [0x90, ..]
        | [0x0f, 0x1f, 0x44, 0x00, 0x00, ..]
        | [0xeb, _, ..]
        | [0xe9, _, _, _, _, ..]
        | [0x70..=0x7f, _, ..]
        | [0x0f, 0x80..=0x8f, _, _, _, _, ..] => Instruction::Cheap,
        // endbr64
        [0xf3, 0x0f, 0x1e, 0xfa, ..] => Instruction::Harmless(4),
        // cmp dword [rip+disp32], imm32 and imm8; cmp byte [rip+disp32], imm8: reads a global, changes flags only
        [0x81, CMP_GLOBAL, _, _, _, _, _, _, _, _, ..] => Instruction::Harmless(10),
        [0x80 | 0x83, CMP_GLOBAL, _, _, _, _, _, ..] => Instruction::Harmless(7),
        // mov or xor between registers, with and without REX
        [rex @ 0x40..=0x4f, operation, operands, ..]
            if between_free_registers(*rex, *operation, *operands) =>
        {
            Instruction::Harmless(3)
        }
        [operation, operands, ..] if between_free_registers(0x40, *operation, *operands) => {
            Instruction::Harmless(2)
        }
        _ => Instruction::Other,
    }
}

/// Whether this is `mov` or `xor` from register to register into one that holds no argument and is not the stack's.
fn between_free_registers(rex: u8, operation: u8, operands: u8) -> bool {
    const REGISTERS_ONLY: u8 = 0b1100_0000;
    const REX_R: u8 = 0b0100;
    const REX_B: u8 = 0b0001;
    // rax, rbx, rbp, r10 to r15. The others are rcx 1, rdx 2, rsp 4, rsi 6, rdi 7, r8 and r9.
    const FREE: u16 = 1 << 0 | 1 << 3 | 1 << 5 | 0b1111_1100_0000_0000;
    let (reg, rm) = ((operands >> 3) & 7, operands & 7);
    let target = match operation {
        // xor and mov, register to r/m
        0x31 | 0x89 => rm | if rex & REX_B != 0 { 8 } else { 0 },
        // xor and mov, r/m to register
        0x33 | 0x8b => reg | if rex & REX_R != 0 { 8 } else { 0 },
        _ => return false,
    };
    operands & REGISTERS_ONLY == REGISTERS_ONLY && FREE & (1 << target) != 0
}

#[cfg(test)]
mod tests {
    use super::{Place, cheapest_place};

    fn cheap(offset: usize) -> Place {
        Place { offset, cheap: true }
    }

    const AT_SYMBOL: Place = Place { offset: 0, cheap: false };

    #[test]
    fn a_cheap_first_instruction_is_taken() {
        for code in [
            &[0x55][..],
            &[0x41, 0x57],
            &[0x90],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0xeb, 0x10],
            &[0xe9, 1, 2, 3, 4],
            &[0x74, 0x0c],
            &[0x0f, 0x84, 1, 2, 3, 4],
        ] {
            assert_eq!(cheapest_place(code), cheap(0), "{code:02x?}");
        }
    }

    #[test]
    fn harmless_instructions_are_skipped() {
        assert_eq!(cheapest_place(&[0xf3, 0x0f, 0x1e, 0xfa, 0x55]), cheap(4), "endbr64; push rbp");
        assert_eq!(
            cheapest_place(&[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x89, 0xf8, 0x41, 0x54]),
            cheap(7),
            "mov rax, rdi"
        );
        assert_eq!(cheapest_place(&[0x31, 0xc0, 0x53]), cheap(2), "xor eax, eax; push rbx");
        assert_eq!(cheapest_place(&[0x49, 0x89, 0xfa, 0x53]), cheap(3), "mov r10, rdi");
        assert_eq!(cheapest_place(&[0x4c, 0x8b, 0xd7, 0x53]), cheap(3), "mov r10, rdi, the other encoding");
    }

    #[test]
    fn the_heads_of_nvidias_own_libraries_are_cheap_ten_bytes_on() {
        // cuMemAlloc_v2 of driver 550.163.01: cmp dword [rip+..], 0x321cba00; je; jmp [rip+..]; mov eax, 4; ret
        let head = [
            0x81, 0x3d, 0x86, 0x2b, 0x88, 0x01, 0x00, 0xba, 0x1c, 0x32, 0x74, 0x0c, 0xff, 0x25, 0x46, 0x5f,
            0x7e, 0x01,
        ];
        assert_eq!(cheapest_place(&head), cheap(10));
        assert_eq!(
            cheapest_place(&[0x83, 0x3d, 1, 2, 3, 4, 0, 0x75, 0x10]),
            cheap(7),
            "cmp of a byte constant; jne"
        );
        assert_eq!(
            cheapest_place(&[0x80, 0x3d, 1, 2, 3, 4, 0, 0x0f, 0x85, 1, 2, 3, 4]),
            cheap(7),
            "cmp of a byte; jne"
        );
        assert_eq!(cheapest_place(&head[..9]), AT_SYMBOL, "cut short");
        let mut or = head;
        or[1] = 0x0d;
        assert_eq!(cheapest_place(&or), AT_SYMBOL, "or dword [rip+..], ..: changes memory");
        let mut relative = head;
        relative[1] = 0x38;
        assert_eq!(cheapest_place(&relative), AT_SYMBOL, "cmp dword [rax], ..: of another length");
    }

    #[test]
    fn stack_memory_and_arguments_are_left_alone() {
        for code in [
            &[0x48, 0x83, 0xec, 0x08, 0x55][..], // sub rsp, 8
            &[0x48, 0x89, 0xe5, 0x55],           // mov rbp, rsp is harmless, but:
            &[0x48, 0x89, 0xec, 0x55],           // mov rsp, rbp
            &[0x89, 0xf7, 0x55],                 // mov edi, esi
            &[0x49, 0x89, 0xf8, 0x55],           // mov r8, rdi
            &[0x31, 0xff, 0x55],                 // xor edi, edi
            &[0x48, 0x8b, 0x07, 0x55],           // mov rax, [rdi]
            &[0x48, 0x8d, 0x47, 0x08, 0x55],     // lea
            &[],
            &[0xf3, 0x0f, 0x1e],
        ] {
            let expected = if code.starts_with(&[0x48, 0x89, 0xe5]) { cheap(3) } else { AT_SYMBOL };
            assert_eq!(cheapest_place(code), expected, "{code:02x?}");
        }
    }
}
