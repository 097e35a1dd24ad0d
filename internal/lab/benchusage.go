package lab

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// clockTicks is how many times a second Linux counts a process's time on a processor (USER_HZ).
	clockTicks = 100
	// leastShare of the processors is worth a word.
	leastShare = 5
)

// mark is called at the begin and at the end of a measurement and notes who used the processors in between. Of a system
// that does not tell, nothing is noted.
func (s *side) mark() {
	now, used := time.Now(), s.processors()
	if s.used == nil {
		s.used, s.usedAt = used, now
		return
	}

	all := now.Sub(s.usedAt) * time.Duration(runtime.NumCPU())
	for name := range used {
		used[name] -= s.used[name]
	}
	if len(used) > 0 {
		// Other programs, and what the host has taken from a virtual machine.
		used["others"] = all
		for name, d := range used {
			if name != "others" {
				used["others"] -= d
			}
		}
	}

	var shares []string
	most := func(a, b string) int { return cmp.Compare(used[b], used[a]) }
	for _, name := range slices.SortedFunc(maps.Keys(used), most) {
		if percent := 100 * float64(used[name]) / float64(all); percent >= leastShare {
			shares = append(shares, fmt.Sprintf("%s %.0f %%", name, percent))
		}
	}
	s.bound, s.used = strings.Join(shares, ", "), nil
}

// processors are the times for which processes, and nobody, have used the processors so far.
func (s *side) processors() map[string]time.Duration {
	pids := map[string]int{
		"Redis": s.stack.Redis.Pid(), "MariaDB": s.stack.MariaDB.Pid(), "load and queue": os.Getpid(),
	}
	s.mu.Lock()
	for i, p := range s.procs {
		pids[s.names[i]] = p.Pid() // the last of a name is the one that runs
	}
	s.mu.Unlock()

	used := map[string]time.Duration{}
	for name, pid := range pids {
		if busy, _, err := usage(pid); err == nil {
			used[name] = busy
		}
	}

	if text, err := os.ReadFile("/proc/stat"); err == nil {
		var user, nice, system, idle, waits int64 // proc_stat(5)
		if _, err := fmt.Sscanf(string(text), "cpu %d %d %d %d %d", &user, &nice, &system, &idle, &waits); err == nil {
			used["idle"] = time.Duration(idle+waits) * time.Second / clockTicks
		}
	}
	return used
}

// usage is the time for which a process has used the processors, and the memory that it has in use (its resident set).
func usage(pid int) (busy time.Duration, bytes int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name, in parentheses, may hold anything; fields are counted from behind it (proc_pid_stat(5)).
	end := strings.LastIndexByte(string(text), ')')
	fields := strings.Fields(string(text[end+1:]))
	const userTime, systemTime, resident = 14 - 3, 15 - 3, 24 - 3
	if end < 0 || len(fields) <= resident {
		return 0, 0, fmt.Errorf("the state of process %d cannot be read", pid)
	}
	var numbers [3]int64
	for i, field := range []int{userTime, systemTime, resident} {
		if numbers[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return time.Duration(numbers[0]+numbers[1]) * time.Second / clockTicks, numbers[2] * int64(os.Getpagesize()), nil
}
