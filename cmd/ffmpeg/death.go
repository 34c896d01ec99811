package main

import (
	"runtime"
	"syscall"
	"unsafe"
)

// die ends the process by a signal, as the program on the worker ended: the
// caller's waitpid must see the same. No core is written and no Go traceback
// printed. It returns the shell's 128+n if the kernel will not let a process
// die of this signal, as for PID 1 of a container.
func die(sig syscall.Signal) int {
	runtime.LockOSThread()
	// A limit of zero is no obstacle to a core_pattern that is a pipe.
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
	const setDumpable = 4 // PR_SET_DUMPABLE
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setDumpable, 0, 0)

	// Go's runtime answers QUIT, ABRT, SEGV and their kin with a traceback and
	// offers no way back to the default, hence the kernel's own call. The
	// zero sigaction is SIG_DFL with an empty mask on every architecture.
	var standard [64]byte
	var mask uint64 = 1 << (uint(sig) - 1)
	const unblock, maskSize = 1, 8
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&standard)), 0, maskSize, 0, 0)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, unblock, uintptr(unsafe.Pointer(&mask)), 0, maskSize, 0, 0)
	// Sent to this thread and unblocked in it: delivered before the call returns.
	_, _, _ = syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(syscall.Getpid()), uintptr(syscall.Gettid()), uintptr(sig))
	return 128 + int(sig)
}
