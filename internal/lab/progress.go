package lab

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// barWidth is the width of a progress bar in characters.
const barWidth = 24

// progress shows on a terminal one line that changes; elsewhere it writes a line now and then.
type progress struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	last     time.Time
	width    int // of the line on the terminal
}

func newProgress(f *os.File) *progress {
	info, err := f.Stat()
	return &progress{w: f, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

// interval is how often a new state is worth showing.
func (p *progress) interval() time.Duration {
	if p.terminal {
		return 100 * time.Millisecond
	}
	return time.Second
}

// step writes a line that stays.
func (p *progress) step(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintln(p.w, text)
}

// show shows a state; more often than at the interval it is dropped.
func (p *progress) show(done, all int64, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.last) < p.interval() {
		return
	}
	p.last = time.Now()
	p.clear()
	filled := 0
	if all > 0 {
		filled = int(min(done, all) * barWidth / all)
	}
	line := "  " + strings.Repeat("█", filled) + strings.Repeat("░", barWidth-filled) + "  " + text
	fmt.Fprint(p.w, line)
	if p.terminal {
		p.width = len(line)
	} else {
		fmt.Fprintln(p.w)
	}
}

// clear removes the changing line.
func (p *progress) clear() {
	if p.width > 0 {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.width = 0
	}
}
