package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/rs/zerolog"

	"stampede/internal/lab"
	"stampede/localstack"
)

const (
	// startAttempts bounds how often a start is repeated because somebody else had taken the port.
	startAttempts = 5
	// restartPause is how long an orchestrator takes to notice that a process has ended.
	restartPause = 300 * time.Millisecond
)

// system is a whole Stampede of one run: two edges and two workers, with a proxy between each kind of program and each
// server. The queue's server is in this process; that it dies is modelled at its proxies (see sqsDown).
type system struct {
	dir     string
	stack   *localstack.Stack
	replica *localstack.Redis // of a fail-over, or nil
	current atomic.Pointer[localstack.Redis]
	links   map[string]*toxiproxy.Proxy // "edge-redis", "worker-mysql", …
	queue   *awssqs.Client              // goes to the server itself
	secret  string
	edges   []*member
	workers []*member
	shops   []*member // of a run with payments
	cashier *cashier  // likewise, or nil
	ctlEnv  []string
}

// programs are the paths of what a run starts.
type programs struct{ edge, worker, shop, ctl, skewedEdge string }

// pairs are the connections that a program has.
var pairs = []string{"edge-redis", "edge-sqs", "edge-mysql", "worker-redis", "worker-sqs", "worker-mysql"}

// shopPairs are those of a shop, which only runs with payments have.
var shopPairs = []string{"shop-redis", "shop-mysql"}

// newSystem starts the servers and the proxies, migrates the database and puts the products on sale. Whatever it
// returns, close it.
func newSystem(ctx context.Context, dir string, bin programs, r row, sold []product) (*system, error) {
	s := &system{dir: dir, links: map[string]*toxiproxy.Proxy{}}
	var err error
	s.stack, err = localstack.Start(ctx, localstack.Options{
		Dir: filepath.Join(dir, "stack"), RedisMasters: r.masters, RedisPersist: r.redisKeeps,
		MariaDBArgs: r.mariadbArgs,
		// Nothing that was answered is ever lost with the process.
		RedisArgs: []string{"--appendfsync", "always"},
	})
	if err != nil {
		return s, err
	}
	s.current.Store(s.stack.Redis)
	s.queue = localstack.SQSClient(s.stack.SQS.URL())
	secret := make([]byte, 32)
	rand.Read(secret)
	s.secret = hex.EncodeToString(secret)

	quiet := zerolog.Nop()
	proxies := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), quiet)
	servers := map[string]string{
		"redis": s.redisAddr(), "mysql": s.stack.MariaDB.Addr(), "sqs": strings.TrimPrefix(s.stack.SQS.URL(),
			"http://"),
	}
	links := pairs
	if r.pays {
		links = slices.Concat(pairs, shopPairs)
	}
	if r.masters > 0 { // which name one another, so that nothing can be between
		links = slices.DeleteFunc(slices.Clone(pairs), func(pair string) bool {
			return strings.HasSuffix(pair, "-redis")
		})
	}
	if r.replica {
		servers["replication"] = servers["redis"]
		links = append(links[:len(links):len(links)], "replication")
	}
	for _, pair := range links {
		server := pair[strings.Index(pair, "-")+1:]
		if s.links[pair], err = startProxy(proxies, pair, servers[server]); err != nil {
			return s, err
		}
	}
	if r.replica {
		if err := s.startReplica(ctx); err != nil {
			return s, err
		}
	}
	s.ctlEnv = s.env(servers["redis"], servers["mysql"], servers["sqs"])
	if out, err := s.ctl(ctx, bin, nil, "migrate"); err != nil {
		return s, fmt.Errorf("migrate: %w: %s", err, out)
	}
	for _, p := range sold {
		if out, err := s.ctl(ctx, bin, nil, p.adding()...); err != nil {
			return s, fmt.Errorf("put product %d on sale: %w: %s", p.id, err, out)
		}
	}
	return s, s.startMembers(ctx, bin, r)
}

// startMembers starts two edges and two workers, with the shop if something must be paid, and waits until all are
// ready.
func (s *system) startMembers(ctx context.Context, bin programs, r row) error {
	for n := range 2 {
		edge, err := s.newMember("edge", n+1, bin.edge)
		if err != nil {
			return err
		}
		worker, err := s.newMember("worker", n+1, bin.worker)
		if err != nil {
			return err
		}
		s.edges, s.workers = append(s.edges, edge), append(s.workers, worker)
	}
	if r.skew != 0 {
		s.edges[0].Path = bin.skewedEdge
		s.edges[0].Env = append(s.edges[0].Env, fmt.Sprintf("%s=%d", skewVariable, int(r.skew.Seconds())))
	}
	if r.pays {
		if err := s.openShop(bin); err != nil {
			return err
		}
	}
	members := s.members()
	errs := make([]error, len(members))
	var starts sync.WaitGroup
	for i, m := range members {
		starts.Go(func() { errs[i] = m.begin(ctx, r.env(m)) })
	}
	starts.Wait()
	return errors.Join(errs...)
}

// adding is how ctl puts a product on sale.
func (p product) adding() []string {
	args := []string{"product", "add", "--id", fmt.Sprint(p.id), "--name", "product", "--price", fmt.Sprint(p.price),
		"--stock", fmt.Sprint(p.stock), "--limit", fmt.Sprint(p.limit), "--buckets", fmt.Sprint(p.buckets)}
	if len(p.providers) > 0 {
		args = append(args, "--currency", p.currency, "--payment", "required", "--pay-within", payWithin.String())
	}
	return args
}

// env is the whole environment of a program that is led to these addresses; nothing else can lead it anywhere.
func (s *system) env(redisAddr, mysqlAddr, sqsAddr string) []string {
	return append([]string{
		"REDIS_URL=redis://" + redisAddr, "MYSQL_DSN=root@tcp(" + mysqlAddr + ")/" + localstack.DatabaseName,
		"ORDERS_QUEUE=" + localstack.QueueName, "ORDERS_DLQ=" + localstack.DLQName,
		"JWT_SECRET=" + s.secret, "SHUTDOWN_NOTICE=0s", "LOG_LEVEL=info", "HOME=" + s.dir, "PATH=" + os.Getenv("PATH"),
	}, localstack.SQSEnv("http://"+sqsAddr)...)
}

// startProxy starts a proxy on a free port, and on another if somebody else was quicker to take that.
func startProxy(proxies *toxiproxy.ApiServer, name, to string) (*toxiproxy.Proxy, error) {
	for attempt := 1; ; attempt++ {
		addr, err := lab.FreeAddr()
		if err != nil {
			return nil, err
		}
		p := toxiproxy.NewProxy(proxies, name, addr, to)
		err = p.Start()
		if err == nil {
			return p, nil
		}
		if attempt == startAttempts {
			return nil, fmt.Errorf("start proxy %s: %w", name, err)
		}
	}
}

// ctl runs the operator's command with the addresses of the servers themselves.
func (s *system) ctl(ctx context.Context, bin programs, env []string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lab.StartWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin.ctl, args...)
	cmd.Dir = s.dir
	cmd.Env = slices.Concat(s.ctlEnv, []string{"REDIS_URL=redis://" + s.redisAddr()}, env)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// redisAddr is the address of the Redis that holds the data now, or those of the masters of a Cluster.
func (s *system) redisAddr() string {
	if c := s.stack.Cluster; c != nil {
		return strings.TrimPrefix(c.URL(), "redis://")
	}
	return s.current.Load().Addr()
}

func (s *system) members() []*member { return slices.Concat(s.edges, s.shops, s.workers) }

func (s *system) member(name string) *member {
	for _, m := range s.members() {
		if m.Name == name {
			return m
		}
	}
	panic("faults: there is no " + name)
}

// urls are the addresses of the edges.
func (s *system) urls() []string {
	urls := make([]string, len(s.edges))
	for i, m := range s.edges {
		urls[i] = "http://" + m.Addr
	}
	return urls
}

// close stops everything: the programs by SIGTERM, all at once, then the proxies and the servers.
func (s *system) close() error {
	var stops sync.WaitGroup
	for _, m := range s.members() {
		stops.Go(m.end)
	}
	stops.Wait()
	var errs []error
	if s.cashier != nil {
		errs = append(errs, s.cashier.close())
	}
	for _, p := range s.links {
		p.Stop()
	}
	if s.replica != nil {
		errs = append(errs, s.replica.Close())
	}
	if s.stack != nil {
		errs = append(errs, s.stack.Close())
	}
	return errors.Join(errs...)
}

// link returns the proxies between some programs and a server, such as "edge-redis", or "redis" for all programs.
func (s *system) link(name string) (found []*toxiproxy.Proxy) {
	for pair, p := range s.links {
		if pair == name || strings.HasSuffix(pair, "-"+name) {
			found = append(found, p)
		}
	}
	return found
}

// cut closes the connections of a link and refuses new ones, as a process does that has died.
func (s *system) cut(name string) {
	for _, p := range s.link(name) {
		p.Stop()
	}
}

// mend takes connections again.
func (s *system) mend(name string) error {
	for _, p := range s.link(name) {
		var err error
		for range startAttempts { // the port stays the same, and all that helps is to wait until it is free again
			if err = p.Start(); err == nil {
				break
			}
			time.Sleep(restartPause)
		}
		if err != nil {
			return fmt.Errorf("start proxy %s again: %w", p.Name, err)
		}
	}
	return nil
}

// poison puts a toxic of toxiproxy on both directions of a link, and cure takes it off.
func (s *system) poison(name, kind, attributes string) error {
	for _, p := range s.link(name) {
		for _, stream := range []string{"upstream", "downstream"} {
			toxic := fmt.Sprintf(`{"name":"%s-%s","type":"%s","stream":"%s","attributes":{%s}}`, kind, stream, kind,
				stream, attributes)
			if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
				return fmt.Errorf("%s on %s: %w", kind, name, err)
			}
		}
	}
	return nil
}

func (s *system) cure(name string) {
	for _, p := range s.link(name) {
		p.Toxics.ResetToxics(context.Background())
	}
}

// member is an edge or a worker. While it is wanted it is started again whenever it has ended, as an orchestrator does.
type member struct {
	*lab.Program
	role string

	mu      sync.Mutex
	process *localstack.Process
	wanted  bool
	ends    []ended
	watch   sync.WaitGroup
}

// ended is how a process has ended: by a signal, or with a code.
type ended struct {
	signal syscall.Signal
	code   int
}

func (s *system) newMember(role string, n int, path string) (*member, error) {
	redisAddr, sqsAddr := s.redisAddr(), ""
	if link := s.links[role+"-redis"]; link != nil {
		redisAddr = link.Listen
	}
	if link := s.links[role+"-sqs"]; link != nil {
		sqsAddr = link.Listen
	}
	name := fmt.Sprintf("%s-%d", role, n)
	p, err := lab.NewProgram(role, lab.Program{
		Name: name, Path: path, LogFile: filepath.Join(s.dir, name+".log"),
		Env: s.env(redisAddr, s.links[role+"-mysql"].Listen, sqsAddr),
	})
	return &member{Program: p, role: role}, err
}

// begin starts the process, with more variables for the first time only, and returns when it is ready.
func (m *member) begin(ctx context.Context, first []string) error {
	m.mu.Lock()
	m.wanted = true
	m.mu.Unlock()
	if err := m.start(first); err != nil {
		return err
	}

	m.watch.Go(m.keep)
	if err := m.Await(ctx, nil); err != nil { // it is started again if it ends
		return fmt.Errorf("%w; the end of its log:\n%s", err, m.current().LogTail())
	}
	return nil
}

func (m *member) start(more []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.wanted {
		return nil
	}
	p, err := m.Start(more...)
	if err == nil {
		m.process = p
	}
	return err
}

// keep starts the process again until it is no longer wanted.
func (m *member) keep() {
	for {
		p := m.current()
		<-p.Done()
		end := ended{code: p.ExitCode()}
		var exit *exec.ExitError
		if errors.As(p.Wait(), &exit) {
			if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
				end.signal = status.Signal()
			}
		}
		m.mu.Lock()
		m.ends = append(m.ends, end)
		wanted := m.wanted
		m.mu.Unlock()
		if !wanted {
			return
		}
		time.Sleep(restartPause)
		if err := m.start(nil); err != nil {
			fmt.Fprintln(os.Stderr, "faults:", err)
			return
		}
		if m.current() == p {
			return // ended in the meantime
		}
	}
}

func (m *member) current() *localstack.Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process
}

// ended lists how the processes so far have ended.
func (m *member) ended() []ended {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.ends)
}

// signal sends a signal to the process that runs now.
func (m *member) signal(sig os.Signal) error { return m.current().Signal(sig) }

// end stops the process for good.
func (m *member) end() {
	m.mu.Lock()
	m.wanted = false
	p := m.process
	m.mu.Unlock()
	if p != nil {
		_ = p.Signal(syscall.SIGCONT) // one that was stopped would not see SIGTERM
		p.Stop(lab.StopWait)
	}
	m.watch.Wait()
}

// fired counts how often the failpoints of a process have done something, as its log says.
func (m *member) fired(what string) int {
	content, err := os.ReadFile(m.LogFile)
	if err != nil {
		return 0
	}
	return strings.Count(string(content), "failpoint "+what+"\n")
}
