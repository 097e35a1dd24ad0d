package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// sampleInterval is how often the system is looked at, for the plot and to see when it is quiet.
	sampleInterval = 250 * time.Millisecond
	// sampleTimeout bounds a look at a server that hangs.
	sampleTimeout = time.Second
	// quietSamples is how often in a row it must look quiet.
	quietSamples = 3
)

// sample is a look at the system.
type sample struct {
	at                                 time.Duration // since the start of the load
	redis                              bool          // Redis has answered
	queue, available, reserved, outbox int64         // what is lent counts as reserved
	edgeRSS, workerRSS                 int64         // bytes, of the largest edge and worker
}

func (s sample) quiet() bool { return s.redis && s.queue == 0 && s.reserved == 0 && s.outbox == 0 }

// sampler looks at a system until its context ends.
type sampler struct {
	system   *system
	products []product
	start    time.Time

	mu      sync.Mutex
	samples []sample
}

func (p *sampler) run(ctx context.Context) {
	var rdb redis.UniversalClient
	addr := ""
	defer func() {
		if rdb != nil {
			rdb.Close()
		}
	}()
	for ctx.Err() == nil {
		if now := p.system.redisAddr(); now != addr {
			if rdb != nil {
				rdb.Close()
			}
			addr = now
			rdb = newRedis(addr)
		}
		s := p.look(ctx, rdb)
		p.mu.Lock()
		p.samples = append(p.samples, s)
		p.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(sampleInterval):
		}
	}
}

// newRedis opens a Redis by its address, or a Cluster by several, comma-separated.
func newRedis(addr string) redis.UniversalClient {
	if addrs := strings.Split(addr, ","); len(addrs) > 1 {
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: addrs, MaxRedirects: -1, DialerRetries: 1, PoolSize: 2, ContextTimeoutEnabled: true,
			DialTimeout: sampleTimeout, ReadTimeout: sampleTimeout,
		})
	}
	return redis.NewClient(&redis.Options{
		Addr: addr, MaxRetries: -1, DialerRetries: 1, PoolSize: 2, ContextTimeoutEnabled: true,
		DialTimeout: sampleTimeout, ReadTimeout: sampleTimeout,
	})
}

func (p *sampler) look(ctx context.Context, rdb redis.UniversalClient) sample {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	s := sample{at: time.Since(p.start), redis: true, queue: p.system.queued(ctx)}
	var rows []int64
	for _, product := range p.products {
		rows = append(rows, product.rows()...)
	}
	for _, id := range rows {
		tag := fmt.Sprintf("{%d}", id)
		pipe := rdb.Pipeline()
		available, reserved, outbox := pipe.Get(ctx, "stock:"+tag), pipe.HVals(ctx, "reserved:"+tag), pipe.HLen(ctx,
			"outbox:"+tag)
		lent := pipe.HVals(ctx, "lent:"+tag)
		_, _ = pipe.Exec(ctx)
		if reserved.Err() != nil || outbox.Err() != nil {
			s.redis = false
			break
		}
		n, _ := available.Int64() // none is loaded: none is available
		s.available += n
		for _, value := range append(reserved.Val(), lent.Val()...) {
			units, _, _ := strings.Cut(value, " ") // of a reservation, which has more
			n, _ := strconv.ParseInt(units, 10, 64)
			s.reserved += n
		}
		s.outbox += outbox.Val()
	}
	for _, m := range p.system.members() {
		rss := residentBytes(m.current().Pid())
		if m.role == "edge" {
			s.edgeRSS = max(s.edgeRSS, rss)
		} else {
			s.workerRSS = max(s.workerRSS, rss)
		}
	}
	return s
}

// queued counts the messages of the queue, or returns 1 if that is not known.
func (s *system) queued(ctx context.Context) int64 {
	n, err := depth(ctx, s.queue, s.stack.SQS.URL()+"/000000000000/orders")
	if err != nil {
		return 1
	}
	return int64(n)
}

// quietSince tells since when the system has been quiet, if it is.
func (p *sampler) quietSince() (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.samples)
	if n < quietSamples {
		return 0, false
	}
	for _, s := range p.samples[n-quietSamples:] {
		if !s.quiet() {
			return 0, false
		}
	}
	return p.samples[n-quietSamples].at, true
}

// taken is all samples so far.
func (p *sampler) taken() []sample {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.samples[:len(p.samples):len(p.samples)]
}

// residentBytes reads the memory of a process that is in use, or 0 where there is no /proc.
func residentBytes(pid int) int64 {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(content)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}
