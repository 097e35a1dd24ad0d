package localstack

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain also is the parent that TestChildrenDieWithTheirParent kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LOCALSTACK_TEST_PARENT"); dir != "" {
		parent(dir)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("stampede/localstack.startLoop"))
}

// parent starts servers, prints their process ids and waits to be killed.
func parent(dir string) {
	ctx := context.Background()
	r, err := StartRedis(ctx, RedisOptions{Dir: filepath.Join(dir, "redis")})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	m, err := StartMariaDB(ctx, MariaDBOptions{Dir: filepath.Join(dir, "mariadb")})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(r.Pid(), m.Pid())
	select {}
}

func TestChildrenDieWithTheirParent(t *testing.T) {
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Skip("only Linux has a parent-death signal")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LOCALSTACK_TEST_PARENT="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pids := strings.Fields(line)
	for _, pid := range pids {
		if !runs(t, pid) {
			t.Errorf("process %s does not run", pid)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if len(pids) != 2 {
		t.Fatalf("the parent printed %q", line)
	}
	for _, pid := range pids {
		for deadline := time.Now().Add(10 * time.Second); runs(t, pid); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("process %s outlives its parent", pid)
			}
		}
	}
}

// runs reports whether a process exists and has not ended. A child that nobody waits for yet still has a pid.
func runs(t *testing.T, pid string) bool {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatalf("process id %q: %v", pid, err)
	}
	if syscall.Kill(n, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return !os.IsNotExist(err)
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}
