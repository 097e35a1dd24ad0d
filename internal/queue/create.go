package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// What the queues are specified with, in CloudFormation too. localstack/init/ready.d/queues.sh makes the same queues in
// LocalStack.
const (
	MessageRetention = 14 * 24 * time.Hour // the longest that SQS has
	MaxReceiveCount  = 10                  // deliveries before SQS itself moves a message to the dead-letter queue
)

// Create makes the orders queue and its dead-letter queue at any SQS endpoint. Queues that exist already are
// given these attributes and keep their messages.
func Create(ctx context.Context, client *sqs.Client, name, dlq string) error {
	attributes := map[string]string{
		string(types.QueueAttributeNameVisibilityTimeout):      seconds(VisibilityTimeout),
		string(types.QueueAttributeNameMessageRetentionPeriod): seconds(MessageRetention),
	}
	dlqURL, err := createQueue(ctx, client, dlq, attributes)
	if err != nil {
		return err
	}

	out, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl:       &dlqURL,
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn},
	})
	if err != nil {
		return fmt.Errorf("asking for the ARN of queue %s: %w", dlq, err)
	}
	redrive, err := json.Marshal(map[string]any{
		"deadLetterTargetArn": out.Attributes[string(types.QueueAttributeNameQueueArn)],
		"maxReceiveCount":     MaxReceiveCount,
	})
	if err != nil {
		return err
	}

	// The orders queue has the same attributes, and moves to the other what nobody can handle.
	attributes[string(types.QueueAttributeNameRedrivePolicy)] = string(redrive)
	_, err = createQueue(ctx, client, name, attributes)
	return err
}

func createQueue(ctx context.Context, client *sqs.Client, name string,
	attributes map[string]string) (url string, err error) {
	created, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	if err == nil {
		return aws.ToString(created.QueueUrl), nil
	}

	// CreateQueue is content with a queue that has the same attributes, and refuses one that has others.
	var exists *types.QueueNameExists
	if !errors.As(err, &exists) {
		return "", fmt.Errorf("making queue %s: %w", name, err)
	}

	found, err := client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return "", fmt.Errorf("looking for queue %s: %w", name, err)
	}
	_, err = client.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: found.QueueUrl,
		Attributes: attributes})
	if err != nil {
		return "", fmt.Errorf("changing queue %s: %w", name, err)
	}
	return aws.ToString(found.QueueUrl), nil
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }
