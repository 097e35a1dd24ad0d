package localstack

import (
	"os/exec"
	"syscall"
)

const (
	terminate = syscall.SIGTERM
	resume    = syscall.SIGCONT
)

// setProcAttr gives the child a process group of its own, and has the kernel kill it when its parent dies.
func setProcAttr(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
