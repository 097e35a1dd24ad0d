package board

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"stampede/internal/redis"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// reports are those of the processes in a Redis, of a test.
type reports struct {
	*testing.T
	redis *redis.Client
}

// eachRedis runs a test on one server and on a Cluster. The Cluster has only one user at a time.
func eachRedis(t *testing.T, test func(reports)) {
	urls := map[string]string{"one server": stacktest.RedisURL(t), "Cluster": stacktest.RedisClusterURL(t)}
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			r := reports{t, openRedis(t, url)}
			if err := r.redis.Del(t.Context(), fleetKey).Err(); err != nil { // the Cluster may know others
				t.Fatal(err)
			}
			test(r)
		})
	}
}

func (r reports) write(process, text string) {
	r.Helper()
	if err := writeReport(r.Context(), r.redis, process, text); err != nil {
		r.Fatal(err)
	}
}

// want reads the reports and compares them, in no order.
func (r reports) want(what string, maxAge time.Duration, want ...string) {
	r.Helper()
	got, err := readReports(r.Context(), r.redis, maxAge)
	if err != nil {
		r.Fatal(err)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		r.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestReports(t *testing.T) {
	eachRedis(t, func(r reports) {
		r.want("before the first report", time.Minute)
		r.write("a", `{"n": 1}`)
		r.write("b", "2\n3")
		r.write("a", `{"n": 4}`)
		r.want("reports", time.Minute, "2\n3", `{"n": 4}`)

		ttl, err := r.redis.PTTL(r.Context(), fleetKey).Result()
		if err != nil || ttl <= 0 || ttl > reportKept {
			r.Errorf("what is left of a fleet that has ended stays for %s, %v", ttl, err)
		}
		r.write("b", "")
		r.want("after the end of one", time.Minute, `{"n": 4}`)
		time.Sleep(3 * time.Millisecond)
		r.want("of the last millisecond", time.Millisecond)
	})
}

// However many processes have died without a word, the others forget them.
func TestReportsOfTheDead(t *testing.T) {
	eachRedis(t, func(r reports) {
		now, err := r.redis.Time(r.Context()).Result()
		if err != nil {
			r.Fatal(err)
		}
		old := now.Add(-reportKept - time.Second).UnixMilli()
		for i := range 20 {
			value := strconv.FormatInt(old, 10) + " {}"
			if err := r.redis.HSet(r.Context(), fleetKey, "dead-"+strconv.Itoa(i), value).Err(); err != nil {
				r.Fatal(err)
			}
		}
		r.want("reports of the dead", reportKept)

		for calls := 0; ; calls++ {
			r.write("alive", "{}")
			left, err := r.redis.HKeys(r.Context(), fleetKey).Result()
			if err != nil {
				r.Fatal(err)
			}
			if len(left) == 1 {
				if fmt.Sprint(left) != "[alive]" {
					r.Errorf("who is left: %q", left)
				}
				return
			} else if calls == 1000 {
				r.Fatalf("after %d calls these are left: %q", calls, left)
			}
		}
	})
}

// A process can be seen while Redis is full.
func TestReportsToAFullRedis(t *testing.T) {
	t.Parallel()
	r := reports{t, openRedis(t, stacktest.NewRedis(t, localstack.RedisOptions{}).URL())}
	if err := r.redis.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	r.write("p", "well")
	r.want("reports", time.Minute, "well")
}
