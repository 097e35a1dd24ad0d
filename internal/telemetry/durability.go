package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"stampede/internal/loop"
	"stampede/internal/mysql"
)

const (
	// durabilityInterval is how often a program says in its log that MySQL may lose commits.
	durabilityInterval = time.Hour
	// durabilityTimeout bounds the question.
	durabilityTimeout = 5 * time.Second
)

// Durability watches the settings of MySQL on which it rests that a decided order stays decided.
type Durability struct {
	DB          *mysql.DB
	Local       bool // MYSQL_LOCAL: what a power cut takes from this server is missed by nobody
	AllowGalera bool // MYSQL_ALLOW_GALERA
}

var errGalera = errors.New("MYSQL_DSN: this server is a node of a Galera cluster (wsrep_on=ON), which may lose " +
	"orders that " +
	"it has committed; use a server that is none, or accept that with MYSQL_ALLOW_GALERA=true")

// Check asks MySQL once and logs what is wrong with its settings. It returns an error if they forbid to start.
func (d Durability) Check(ctx context.Context) error {
	ask, cancel := context.WithTimeout(ctx, durabilityTimeout)
	defer cancel()
	says, err := d.DB.Durability(ask)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		slog.Warn("mysql: it is not known whether its commits outlast a power cut", "error", err)
		return nil
	}
	return d.judge(says)
}

// judge logs what the settings mean.
func (d Durability) judge(says mysql.Durability) error {
	if unknown := says.Unknown(); len(unknown) > 0 {
		slog.Warn("mysql: it is not known whether its commits outlast a power cut: the server does not say all of "+
			"its settings",
			"unknown", strings.Join(unknown, " "))
	}
	switch unsafe := strings.Join(says.Unsafe(), " "); {
	case unsafe == "":
	case d.Local:
		slog.Info("mysql: a crash of this machine may lose the last commits, which is fine for a local server "+
			"(MYSQL_LOCAL)",
			"settings", unsafe)
	default:
		slog.Error("mysql: a power cut may lose orders that were decided, for good: set "+
			"innodb_flush_log_at_trx_commit=1 and sync_binlog=1",
			"settings", unsafe)
	}
	switch {
	case !says.Galera():
		return nil
	case !d.AllowGalera:
		return errGalera
	}
	slog.Warn("mysql: the server is a node of a Galera cluster, which may lose orders that it has committed " +
		"(MYSQL_ALLOW_GALERA)")
	return nil
}

// may reports whether the server may lose commits that somebody would miss.
func (d Durability) may(says mysql.Durability) bool {
	return len(says.Unsafe()) > 0 && !d.Local || says.Galera() && !d.AllowGalera
}

// Watch looks again every hour while ctx lasts. The metric is asked for by whoever reads it, and is not there while the
// answer is not known.
func (d Durability) Watch(ctx context.Context, reg prometheus.Registerer) {
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "stampede_mysql_may_lose_commits",
		Help: "1 if the settings of MySQL allow a power cut or the loss of a node to undo decided orders.",
	})
	if Enabled {
		reg.MustRegister(NewSampled(func(ctx context.Context) error {
			says, err := d.DB.Durability(ctx)
			if err != nil {
				return err
			}
			gauge.Set(0)
			if d.may(says) {
				gauge.Set(1)
			} else if len(says.Unknown()) > 0 && !d.Local {
				return errors.New("the server does not say all of its settings")
			}
			return nil
		}, gauge))
	}
	go loop.Every(ctx, durabilityInterval, func(ctx context.Context) {
		// A server can become a node of Galera only by a restart of its own, which must not end a sale.
		if err := d.Check(ctx); err != nil {
			slog.Error("mysql: it has become a node of a Galera cluster", "error", err)
		}
	})
}
