package localstack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// logTailBytes bounds what an error quotes from a log: enough for the last messages of a server that did not start.
const logTailBytes = 4096

// ProcessOptions say what to run.
type ProcessOptions struct {
	Name string // for messages; the base name of Path if empty
	Path string
	Args []string // without the program's name
	Env  []string // the whole environment; nil means that of this process
	Dir  string   // the working directory; empty means that of this process

	// LogFile takes standard output and standard error, after whatever it holds already. Empty means that the output is
	// dropped.
	LogFile string
}

// Process is a child process that was started. All methods may be called from several goroutines, and also after the
// process has ended.
type Process struct {
	name     string
	cmd      *exec.Cmd
	logFile  string
	logStart int64 // what is before this offset in the log was written by an earlier process

	done chan struct{}
	err  error // what Wait returns; written before done is closed
}

// StartProcess starts a child and returns as soon as it runs. The child ends when this process ends (on Linux at once,
// whatever ends it).
func StartProcess(o ProcessOptions) (*Process, error) {
	if o.Name == "" {
		o.Name = filepath.Base(o.Path)
	}
	p := &Process{name: o.Name, logFile: o.LogFile, done: make(chan struct{})}
	p.cmd = exec.Command(o.Path, o.Args...)
	p.cmd.Env = o.Env
	p.cmd.Dir = o.Dir
	setProcAttr(p.cmd)

	if o.LogFile != "" {
		// The child gets the file itself and no pipe: nothing has to be copied, and the log is complete even if this
		// process dies first.
		log, err := os.OpenFile(o.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("starting %s: %w", o.Name, err)
		}
		defer log.Close()
		if p.logStart, err = log.Seek(0, io.SeekEnd); err != nil {
			return nil, fmt.Errorf("starting %s: %w", o.Name, err)
		}
		p.cmd.Stdout = log
		p.cmd.Stderr = log
	}

	if err := startOnLastingThread(p.cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", o.Name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

var (
	starterOnce sync.Once
	starts      = make(chan func())
)

// startOnLastingThread starts the command from a goroutine that keeps its OS thread for ever. Linux sends the
// parent-death signal when the thread that forked ends, not when the process does, and Go ends threads as it likes.
func startOnLastingThread(cmd *exec.Cmd) error {
	starterOnce.Do(func() { go startLoop() })
	result := make(chan error, 1)
	starts <- func() { result <- cmd.Start() }
	return <-result
}

func startLoop() {
	runtime.LockOSThread()
	for start := range starts {
		start()
	}
}

// Pid returns the process id. It stays the same after the process has ended.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and was waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait blocks until the process has ended. It returns nil for exit code 0, otherwise an *exec.ExitError.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// ExitCode returns the code that the process ended with, or -1 while it runs and if a signal ended it.
func (p *Process) ExitCode() int {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}

// Signal sends a signal. A process that has ended gives os.ErrProcessDone.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill sends SIGKILL and waits until the process has ended. Killing a process that has ended is no error.
func (p *Process) Kill() error {
	if err := p.Signal(os.Kill); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("killing %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// Stop asks the process to end (SIGTERM) and waits for it; after the timeout it kills it. It reports whether it had to.
func (p *Process) Stop(timeout time.Duration) (killed bool) {
	// An error means that the process has ended or is about to be waited for; the wait below covers both.
	_ = p.Signal(terminate)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return false
	case <-timer.C:
	}
	_ = p.Signal(os.Kill)
	<-p.done
	return true
}

// LogTail returns the last few kilobytes that this process wrote to its log file.
func (p *Process) LogTail() string {
	if p.logFile == "" {
		return ""
	}
	f, err := os.Open(p.logFile)
	if err != nil {
		return ""
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	from := max(p.logStart, end-logTailBytes)
	tail, err := io.ReadAll(io.NewSectionReader(f, from, end-from))
	if err != nil {
		return ""
	}
	return string(tail)
}
