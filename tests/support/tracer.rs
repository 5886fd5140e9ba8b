//! A process watched system call by system call (ptrace), with all its threads, and killed wherever a test wants it.
//!
//! Calls are counted over all threads, from the first instruction of the program on: what a debugger of one thread at a
//! time cannot do. Processes that it starts are not followed.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::process::wrap;

/// A call that has just returned; its process stands still in this thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    process: Pid,
    /// As in `libc::SYS_…`.
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
    /// Negative: the number of an error.
    pub(crate) result: i64,
}

/// Calls after which nothing outside the process is other than before.
const HARMLESS: [i64; 38] = [
    libc::SYS_access,
    libc::SYS_brk,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_faccessat2,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_lstat,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_poll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_read,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_recvfrom,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_stat,
    libc::SYS_statx,
];

impl Call {
    /// Whether something outside the process may be other than before.
    pub(crate) fn has_effect(&self) -> bool {
        !HARMLESS.contains(&self.number)
    }

    /// What one of its descriptors stands for, as a path below /proc that leads to the file itself.
    pub(crate) fn descriptor(&self, number: u64) -> PathBuf {
        // A descriptor is an int, whatever the rest of the register holds.
        PathBuf::from(format!("/proc/{}/fd/{}", self.process, number & 0xffff_ffff))
    }
}

/// What shall become of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    GoOn,
    /// SIGKILL, before any thread does anything more.
    Kill,
}

/// A command whose process waits for [`follow`] before it begins.
pub(crate) fn waiting(command: &Command) -> Command {
    wrap(&["sh", "-c", "kill -STOP $$; exec \"$@\"", "sh"], command)
}

/// Follows a process made by [`waiting`], child of this thread, to its end. `after` is asked after each call. The exit
/// code; `None`: it was killed.
pub(crate) fn follow(child: u32, mut after: impl FnMut(&Call) -> Then) -> Option<i32> {
    let process = Pid::from_raw(child.try_into().expect("a process id"));
    waitpid(process, Some(WaitPidFlag::WUNTRACED)).expect("wait for the process to stop");
    // Should this thread die, so does the process.
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::seize(process, options).expect("seize the process");
    kill(process, Signal::SIGCONT).expect("let the process go on");
    let (mut inside, mut begun, mut killed) = (HashSet::new(), false, false);
    // Of this thread's children alone: other tests wait for theirs.
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
        let (thread, signal) = match status {
            WaitStatus::Exited(thread, code) if thread == process => return Some(code),
            WaitStatus::Signaled(thread, ..) if thread == process => return None,
            WaitStatus::PtraceSyscall(thread) => {
                if inside.insert(thread) {
                    (thread, None)
                } else {
                    inside.remove(&thread);
                    if let Some(call) = call_of(process, thread).filter(|_| !killed) {
                        // The shell before the program does not count.
                        begun |= call.number == libc::SYS_execve && call.result == 0;
                        if begun && after(&call) == Then::Kill {
                            kill(process, Signal::SIGKILL).expect("kill the process");
                            killed = true;
                        }
                    }
                    (thread, None)
                }
            }
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => continue,
        };
        // It may have been killed meanwhile.
        ptrace::syscall(thread, signal).ok();
    }
    panic!("the process was waited for by somebody else")
}

#[cfg(target_arch = "x86_64")]
fn call_of(process: Pid, thread: Pid) -> Option<Call> {
    let registers = ptrace::getregs(thread).ok()?;
    let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
    let (number, result) = (registers.orig_rax.cast_signed(), registers.rax.cast_signed());
    Some(Call { process, number, arguments, result })
}
