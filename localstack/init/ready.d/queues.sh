#!/usr/bin/env bash
# LocalStack runs this when it is ready. It makes the orders queue and its dead-letter queue as queue.Create
# does. Running it again changes nothing. The orders queue comes last, so whoever finds it finds all of it.
set -euo pipefail

visibility_timeout_seconds=60
retention_seconds=1209600 # 14 days
max_receive_count=10

# make_queue takes a name and the attributes as JSON. CreateQueue refuses a queue that exists with other attributes.
make_queue() {
  local url
  if ! awslocal sqs create-queue --queue-name "$1" --attributes "$2"; then
    url=$(awslocal sqs get-queue-url --queue-name "$1" --query QueueUrl --output text)
    awslocal sqs set-queue-attributes --queue-url "$url" --attributes "$2"
  fi
}

common="\"VisibilityTimeout\":\"$visibility_timeout_seconds\",\"MessageRetentionPeriod\":\"$retention_seconds\""

make_queue orders-dlq "{$common}"

dlq_url=$(awslocal sqs get-queue-url --queue-name orders-dlq --query QueueUrl --output text)
dlq_arn=$(awslocal sqs get-queue-attributes --queue-url "$dlq_url" --attribute-names QueueArn \
  --query Attributes.QueueArn --output text)

# The value of RedrivePolicy is itself JSON, in a string.
redrive="{\\\"deadLetterTargetArn\\\":\\\"$dlq_arn\\\",\\\"maxReceiveCount\\\":$max_receive_count}"
make_queue orders "{$common,\"RedrivePolicy\":\"$redrive\"}"
