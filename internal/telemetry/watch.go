package telemetry

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"stampede/internal/mysql"
	"stampede/internal/queue"
	"stampede/internal/redis"
)

// Watch measures what a program depends on: its calls to Redis, MySQL and SQS, its pools of connections, and how long
// the queues are. The queue is nil if the program uses none. It comes before they are used.
func Watch(reg prometheus.Registerer, rdb *redis.Client, db *mysql.DB, q *queue.Queue) {
	if !Enabled {
		return
	}
	calls := NewCalls(reg)
	rdb.Observe(calls.Of("redis"))
	db.Observe(calls.Of("mysql"))
	reg.MustRegister(collectors.NewDBStatsCollector(db.Pool(), "stampede"))
	if q != nil {
		q.Observe(calls.Of("sqs"))
		reg.MustRegister(queueLengths(q))
	}

	redisConns := func(state string, count func() uint32) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "stampede_redis_pool_connections", Help: "Connections to Redis that are open, by state.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(count()) })
	}
	reg.MustRegister(
		redisConns("idle", func() uint32 { return rdb.PoolStats().IdleConns }),
		redisConns("used", func() uint32 {
			s := rdb.PoolStats()
			return s.TotalConns - min(s.IdleConns, s.TotalConns)
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "stampede_redis_pool_timeouts_total",
			Help: "Calls that got no connection to Redis in time, because all were in use.",
		}, func() float64 { return float64(rdb.PoolStats().Timeouts) }),
	)
}

// queueLengths are gauges of both queues.
func queueLengths(q *queue.Queue) *Sampled {
	messages := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "stampede_queue_messages",
		Help: "Messages in SQS by queue and state, as the queue says. A message holds 1 to 100 orders.",
	}, []string{"queue", "state"})
	return NewSampled(func(ctx context.Context) error {
		for name, q := range map[string]*queue.Queue{"orders": q, "dead_letters": q.DeadLetters()} {
			n, err := q.Counts(ctx)
			if err != nil {
				return err
			}
			messages.WithLabelValues(name, "visible").Set(float64(n.Visible))
			messages.WithLabelValues(name, "in_flight").Set(float64(n.InFlight))
			messages.WithLabelValues(name, "delayed").Set(float64(n.Delayed))
		}
		return nil
	}, messages)
}
