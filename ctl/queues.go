package main

import (
	"context"
	"fmt"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"stampede/internal/config"
	"stampede/internal/queue"
)

// queuesCmd creates the two queues, or gives them their attributes again.
type queuesCmd struct{ queue, dlq *string }

func (c *queuesCmd) declare(vars *config.Set) { c.queue, c.dlq = vars.Queues() }

func (c *queuesCmd) Run(ctx context.Context) error {
	cfg, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("AWS_…: %w", err)
	}
	if err := queue.Create(ctx, sqs.NewFromConfig(cfg), *c.queue, *c.dlq); err != nil {
		return err
	}
	fmt.Printf("queues %s and %s are there\n", *c.queue, *c.dlq)
	return nil
}
