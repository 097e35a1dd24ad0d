package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/valyala/fasthttp"

	"stampede/internal/queue"
	"stampede/localstack"
)

const (
	// steadySide is the name of the side on which orders come at fixed rates.
	steadySide = "steady"
	// restTimes as long as another measurement is looked at a system at rest, which uses little.
	restTimes = 5
)

// steadyRates are how many orders come a second.
var steadyRates = []float64{2_000, 10_000}

// steadyParts are the processes whose use of the processors is counted apart, by the names of the table.
var steadyParts = []string{"edge", "worker", "Redis", "MariaDB", "local SQS"}

// steadyMeasures show what an order costs while there is time for it, and what a system costs that has nothing to do.
// Saturation shows less of it: the more orders wait, the larger are the batches, and the cheaper is each order.
func steadyMeasures() (all []measure) {
	for _, rate := range steadyRates {
		name := fmt.Sprintf("steady/%.0f", rate)
		all = append(all, measure{
			name: fmt.Sprintf("processor us per order at %.0f orders/s", rate), figure: name,
			parts: partsOf(name), noBar: true,
		})
	}
	return append(all, measure{
		name: "processor us per second at rest", figure: "rest", parts: partsOf("rest"), noBar: true,
	})
}

func partsOf(figure string) (parts []string) {
	for _, part := range steadyParts {
		parts = append(parts, figure+" "+part)
	}
	return parts
}

// steadySystem is this build with edge, worker and all servers, the queue's too, each in a process of its own.
func (b *bench) steadySystem(ctx context.Context) (*side, error) {
	if s := b.others[steadySide]; s != nil {
		return s, nil
	}

	addr, err := b.startServer(ctx, "local-sqs")
	if err != nil {
		return nil, err
	}
	url := "http://" + addr
	client := localstack.SQSClient(url)
	if err := queue.Create(ctx, client, localstack.QueueName, localstack.DLQName); err != nil {
		return nil, err
	}

	s, err := b.addSide(ctx, steadySide, sideOptions{bin: b.bin, env: localstack.SQSEnv(url)})
	if err != nil {
		return nil, err
	}
	s.sqs = client
	worker, err := s.startWorker(ctx)
	if worker != nil {
		s.running["worker"] = append(s.running["worker"], worker)
	}
	return s, err
}

// used is what each of the parts has used of the processors so far, in microseconds.
func (b *bench) usedBy(s *side) (map[string]float64, error) {
	used := map[string]float64{}
	for _, part := range steadyParts {
		pid := 0
		switch part {
		case "Redis":
			pid = s.stack.Redis.Pid()
		case "MariaDB":
			pid = s.stack.MariaDB.Pid()
		case "local SQS":
			pid = b.pid("local-sqs")
		default:
			pid = s.pid(part)
		}
		busy, _, err := usage(pid)
		if err != nil {
			return nil, err
		}
		used[part] = float64(busy.Microseconds())
	}
	return used, nil
}

// share finds for each of the parts, and for all together, what they have used since, divided by something.
func (b *bench) share(s *side, since map[string]float64, by float64, figure string, found figures) error {
	used, err := b.usedBy(s)
	if err != nil {
		return err
	}
	for _, part := range steadyParts {
		cost := (used[part] - since[part]) / by
		found[figure+" "+part] = cost
		found[figure] += cost
	}
	return nil
}

// probeSteady has orders come at each of the rates, and be decided as they come.
func probeSteady(ctx context.Context, b *bench) (figures, error) {
	s, err := b.steadySystem(ctx)
	if err != nil {
		return nil, err
	}
	found := figures{}
	for _, rate := range steadyRates {
		if err := s.truncate(ctx); err != nil {
			return nil, err
		}
		var before map[string]float64
		var markErr error
		n := 0
		l := rawLoad{addr: s.edge, conns: closedConns, requests: s.orders}
		counts, latencies, err := l.open(ctx, rate, b.o.duration/warmShare, b.o.duration, func() {
			if n++; n == 1 { // the end is when the queue is empty
				before, markErr = b.usedBy(s)
			}
		})
		if err := errors.Join(err, markErr, counts.only(fasthttp.StatusAccepted)); err != nil {
			return nil, err
		}
		if err := s.awaitEmpty(ctx); err != nil {
			return nil, err
		}
		figure := fmt.Sprintf("steady/%.0f", rate)
		if err := b.share(s, before, float64(len(latencies)), figure, found); err != nil {
			return nil, err
		}
		if err := s.awaitDecided(ctx, s.hot.ID, counts.all()); err != nil {
			return nil, err
		}
		found[figure+" p99 ms"] = percentile(latencies, .99)
	}
	return found, nil
}

// awaitEmpty waits until the queue of another process is empty, by asking it.
func (s *side) awaitEmpty(ctx context.Context) error {
	name := localstack.QueueName
	url, err := s.sqs.GetQueueUrl(ctx, &awssqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return err
	}
	waiting, inFlight := types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible
	for end := time.Now().Add(drainLimit); ; wait(ctx, pollStart) {
		got, err := s.sqs.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{
			QueueUrl: url.QueueUrl, AttributeNames: []types.QueueAttributeName{waiting, inFlight},
		})
		if err != nil || got.Attributes[string(waiting)] == "0" && got.Attributes[string(inFlight)] == "0" {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("the queue is not empty: %v", got.Attributes)
		}
	}
}

// probeRest looks at the same system while nobody orders, before anybody has: after a rush, MariaDB writes its pages
// and clears old versions of rows for some time.
func probeRest(ctx context.Context, b *bench) (figures, error) {
	s, err := b.steadySystem(ctx)
	if err != nil {
		return nil, err
	}
	wait(ctx, restTimes*b.o.duration/2) // until they have started in full
	before, err := b.usedBy(s)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	wait(ctx, restTimes*b.o.duration)
	found := figures{}
	return found, b.share(s, before, time.Since(begin).Seconds(), "rest", found)
}
