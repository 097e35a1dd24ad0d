package sqs

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// config is what a queue's attributes set. A config that is in use never changes.
type config struct {
	visibilitySeconds int64
	maxMessageBytes   int64
	retentionSeconds  int64
	delaySeconds      int64
	waitSeconds       int64
	redrive           redrivePolicy
	stored            map[string]string // Attributes that are only kept, by name.
	modifiedAt        int64
}

// redrivePolicy is zero if there is none.
type redrivePolicy struct {
	targetARN       string
	maxReceiveCount int64
}

func defaultConfig(now int64) *config {
	return &config{
		visibilitySeconds: 30, maxMessageBytes: maxMessageBytes, retentionSeconds: 4 * 24 * 60 * 60, modifiedAt: now,
	}
}

// numericAttributes are those that a queue acts on, with the ranges that SQS allows.
var numericAttributes = map[string]struct {
	min, max int64
	of       func(*config) *int64
}{
	"VisibilityTimeout":             {0, maxVisibilitySeconds, func(c *config) *int64 { return &c.visibilitySeconds }},
	"MaximumMessageSize":            {1024, maxMessageBytes, func(c *config) *int64 { return &c.maxMessageBytes }},
	"MessageRetentionPeriod":        {60, 14 * 24 * 60 * 60, func(c *config) *int64 { return &c.retentionSeconds }},
	"DelaySeconds":                  {0, maxDelaySeconds, func(c *config) *int64 { return &c.delaySeconds }},
	"ReceiveMessageWaitTimeSeconds": {0, maxWaitSeconds, func(c *config) *int64 { return &c.waitSeconds }},
}

// storedAttributes are accepted and given back, and change nothing here.
var storedAttributes = []string{
	"Policy", "RedriveAllowPolicy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "SqsManagedSseEnabled",
}

var fifoAttributes = []string{"FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit"}

// computedAttributes can be read but not set.
var computedAttributes = []string{
	"ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed",
	"CreatedTimestamp", "LastModifiedTimestamp", "QueueArn", "RedrivePolicy",
}

// with returns a config with the given attributes changed.
func (c *config) with(s *Server, pairs []attributePair) (*config, *apiError) {
	changed := *c
	changed.stored = maps.Clone(c.stored)
	for _, p := range pairs {
		switch numeric, ok := numericAttributes[p.name]; {
		case ok:
			n, err := strconv.ParseInt(p.value, 10, 64)
			if err != nil || n < numeric.min || n > numeric.max {
				return nil, errAttributeValue.with("Invalid value for the parameter %s.", p.name)
			}
			*numeric.of(&changed) = n
		case p.name == "RedrivePolicy":
			policy, err := s.parseRedrive(p.value)
			if err != nil {
				return nil, err
			}
			changed.redrive = policy
		case slices.Contains(storedAttributes, p.name):
			if changed.stored == nil {
				changed.stored = map[string]string{}
			}
			changed.stored[p.name] = p.value
			if p.value == "" {
				delete(changed.stored, p.name)
			}
		case slices.Contains(fifoAttributes, p.name):
			return nil, errUnsupported.with("%s is for FIFO queues, and this server has standard queues only.", p.name)
		default:
			return nil, errAttributeName.with("Unknown Attribute %s.", p.name)
		}
	}
	return &changed, nil
}

// same reports whether two configs set the same, whenever they did.
func (c *config) same(other *config) bool {
	for _, numeric := range numericAttributes {
		if *numeric.of(c) != *numeric.of(other) {
			return false
		}
	}
	return c.redrive == other.redrive && maps.Equal(c.stored, other.stored)
}

// parseRedrive reads a RedrivePolicy. An empty one removes the policy.
func (s *Server) parseRedrive(text string) (redrivePolicy, *apiError) {
	var policy struct {
		Target string      `json:"deadLetterTargetArn"`
		Max    json.Number `json:"maxReceiveCount"` // A number, or a string with one.
	}
	if text == "" {
		return redrivePolicy{}, nil
	}
	if err := json.Unmarshal([]byte(text), &policy); err != nil {
		return redrivePolicy{}, invalid("RedrivePolicy", text, "Amazon SQS can't parse it as a redrive policy.")
	}
	if policy.Target == "" || policy.Max == "" {
		return redrivePolicy{}, invalid("RedrivePolicy", text,
			"Redrive policy does not contain mandatory attribute: deadLetterTargetArn and maxReceiveCount.")
	}
	n, err := policy.Max.Int64()
	if err != nil || n < 1 || n > 1000 {
		return redrivePolicy{}, invalid("RedrivePolicy", text,
			"Invalid value for maxReceiveCount, valid values are from 1 to 1000 both inclusive.")
	}
	if s.byARN(policy.Target) == nil {
		return redrivePolicy{}, invalid("RedrivePolicy", text, "Dead letter target does not exist.")
	}
	return redrivePolicy{policy.Target, n}, nil
}

func (s *Server) arn(name string) string {
	return "arn:aws:sqs:" + s.region + ":" + accountID + ":" + name
}

// byARN returns the queue with an ARN, or nil.
func (s *Server) byARN(arn string) *queue {
	name, ok := strings.CutPrefix(arn, s.arn(""))
	if !ok {
		return nil
	}
	return (*s.queues.Load())[name]
}

// attribute returns the value of an attribute, and whether there is one.
func (q *queue) attribute(name string, c *config, n counts) (string, bool) {
	if numeric, ok := numericAttributes[name]; ok {
		return strconv.FormatInt(*numeric.of(c), 10), true
	}
	switch name {
	case "ApproximateNumberOfMessages":
		return strconv.Itoa(n.ready), true
	case "ApproximateNumberOfMessagesNotVisible":
		return strconv.Itoa(n.inFlight), true
	case "ApproximateNumberOfMessagesDelayed":
		return strconv.Itoa(n.delayed), true
	case "CreatedTimestamp":
		return strconv.FormatInt(q.createdAt/second, 10), true
	case "LastModifiedTimestamp":
		return strconv.FormatInt(c.modifiedAt/second, 10), true
	case "QueueArn":
		return q.arn, true
	case "RedrivePolicy":
		if c.redrive == (redrivePolicy{}) {
			return "", false
		}
		b := appendQuoted([]byte(`{"deadLetterTargetArn":`), c.redrive.targetARN)
		b = append(b, `,"maxReceiveCount":`...)
		return string(append(strconv.AppendInt(b, c.redrive.maxReceiveCount, 10), '}')), true
	}
	value, ok := c.stored[name]
	return value, ok
}
