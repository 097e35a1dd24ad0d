//go:build unix && !linux

package localstack

import (
	"os/exec"
	"syscall"
)

const (
	terminate = syscall.SIGTERM
	resume    = syscall.SIGCONT
)

// setProcAttr gives the child a process group of its own. There is no parent-death signal here: a parent that is killed
// leaves its children running.
func setProcAttr(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
