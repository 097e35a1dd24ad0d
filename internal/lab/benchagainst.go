package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// againstSide is the name of the other build's side.
	againstSide = "against"
	// otherBuild is what people call it.
	otherBuild = "other build"
)

// againstPrograms are what the folder of another build must hold.
var againstPrograms = []string{"edge", "worker", "ctl"}

// CheckAgainst reports which program is missing in the folder of another build, if there is one.
func CheckAgainst(dir string) error {
	if dir == "" {
		return nil
	}
	for _, name := range againstPrograms {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// againstMeasures are the bars for this build over another one, which it must not fall behind by more than two runs of
// one build differ. They are measured only if there is another one.
func againstMeasures() []measure {
	return []measure{
		{name: "accepted orders/s, each on the queue", figure: "rush/this", baseline: "rush/other", over: otherBuild,
			bar: .85},
		{name: "processor us of Redis per accepted order", figure: "rush/redis us, this",
			baseline: "rush/redis us, other", over: otherBuild, bar: 1.2, atMost: true},
		{name: "p99 ms at half of this build's accepted rate", figure: "same rate/p99, this",
			baseline: "same rate/p99, other", over: otherBuild, bar: 1.5, atMost: true},
		{name: "p99.9 ms at half of this build's accepted rate", figure: "same rate/p99.9, this",
			baseline: "same rate/p99.9, other", over: otherBuild, bar: 1.5, atMost: true},
		{name: "orders/s from a full queue to deleted", figure: "full queue/this", baseline: "full queue/other",
			over: otherBuild, noBar: true},
	}
}

func againstProbes() []probe {
	return []probe{
		{name: "rush", run: probeRush},
		{name: "same rate", needs: "rush", run: probeSameRate},
		{name: "full queue", run: probeFullQueue},
	}
}

// inTurns measures this build and the other one, each round the other way round, so that what becomes slower within a
// round does so for both.
func (b *bench) inTurns(ctx context.Context, run func(s *side, whose string) error) error {
	if b.others[againstSide] == nil {
		bin, err := filepath.Abs(b.o.against)
		if err != nil {
			return err
		}
		b.show.step("starting the other build on servers of its own")
		if _, err := b.addSide(ctx, againstSide, sideOptions{bin: bin, ctl: filepath.Join(bin, "ctl")}); err != nil {
			return err
		}
	}

	turns := []string{"this", "other"}
	if b.round%2 == 1 {
		slices.Reverse(turns)
	}
	sides := map[string]*side{"this": b.side, "other": b.others[againstSide]}
	for _, whose := range turns {
		if err := run(sides[whose], whose); err != nil {
			return fmt.Errorf("%s build: %w", whose, err)
		}
	}
	return nil
}

// probeRush has each build take as many orders as it can, and counts what its Redis uses of the processors for one.
func probeRush(ctx context.Context, b *bench) (figures, error) {
	found := figures{}
	return found, b.inTurns(ctx, func(s *side, whose string) error {
		if err := s.reset(ctx); err != nil {
			return err
		}
		l := rawLoad{addr: s.edge, conns: closedConns, requests: s.orders}
		var used []time.Duration // at the begin and at the end
		var at []time.Time
		var errs []error
		r, err := l.closed(ctx, b.o.duration/warmShare, b.o.duration, func() {
			s.mark()
			busy, err := redisTime(ctx, s.rdb)
			used, at, errs = append(used, busy), append(at, time.Now()), append(errs, err)
		})
		if err := errors.Join(append(errs, err, r.all.only(fasthttp.StatusAccepted))...); err != nil {
			return err
		}
		orders := r.perSecond * at[1].Sub(at[0]).Seconds()
		found["rush/"+whose] = r.perSecond
		found["rush/redis us, "+whose] = float64((used[1] - used[0]).Microseconds()) / orders
		return nil
	})
}

// probeSameRate offers both builds half of what this one has shown that it can take.
func probeSameRate(ctx context.Context, b *bench) (figures, error) {
	rate := median(b.found["rush/this"]) / 2
	if rate == 0 {
		return nil, errors.New("this build's capacity is not known")
	}
	found := figures{"same rate/orders per second": rate}
	return found, b.inTurns(ctx, func(s *side, whose string) error {
		if err := s.reset(ctx); err != nil {
			return err
		}
		l := rawLoad{addr: s.edge, conns: openConns, requests: s.orders}
		counts, latencies, err := l.open(ctx, rate, b.o.duration/warmShare, b.o.duration, s.mark)
		if err := errors.Join(err, counts.only(fasthttp.StatusAccepted)); err != nil {
			return err
		}
		b.draw(whose+" build at half of this one's capacity", latencies)
		found["same rate/p50, "+whose] = percentile(latencies, .5)
		found["same rate/p99, "+whose] = percentile(latencies, .99)
		found["same rate/p99.9, "+whose] = percentile(latencies, .999)
		return nil
	})
}

// probeFullQueue has each build's edge fill a queue and its worker empty it.
func probeFullQueue(ctx context.Context, b *bench) (figures, error) {
	found := figures{}
	return found, b.inTurns(ctx, func(s *side, whose string) (err error) {
		found["full queue/"+whose], _, err = s.fillAndDrain(ctx, b.o.duration, unpaid)
		return err
	})
}
