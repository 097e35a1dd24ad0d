package sqs

import (
	"fmt"

	"github.com/valyala/fasthttp"
)

// apiError is a refusal as a client sees it. SQS names an error twice: shape is what the JSON protocol puts into
// __type and what an SDK maps to its error types, code is the older name that travels in x-amzn-query-error, in the
// Failed entries of a batch, and that most SDKs show.
type apiError struct {
	shape    string
	code     string
	message  string
	status   int
	receiver bool // The fault is the server's, so a client may try again.
}

func modelled(shape, code string, status int, message string) *apiError {
	return &apiError{shape: "com.amazonaws.sqs#" + shape, code: code, status: status, message: message}
}

func common(shape, code string, status int, message string) *apiError {
	return &apiError{shape: "com.amazon.coral.service#" + shape, code: code, status: status, message: message}
}

// The shapes and codes are those of the SQS service model, whose error types carry both names. The JSON protocol
// answers 400 where the older protocol had 403 or 404, with the exceptions below.
var (
	errQueueDoesNotExist = modelled("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", 400,
		"The specified queue does not exist.")
	errQueueNameExists = modelled("QueueNameExists", "QueueAlreadyExists", 400,
		"A queue already exists with the same name and a different value for an attribute.")
	errHandleInvalid = modelled("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", 400,
		"The input receipt handle is invalid.")
	errMessageNotInflight = modelled("MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight", 400,
		"The message referred to is not in flight.")
	errMessageContents = modelled("InvalidMessageContents", "InvalidMessageContents", 400,
		"Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD "+
			"| #x10000 to #x10FFFF.")
	errAttributeName   = modelled("InvalidAttributeName", "InvalidAttributeName", 400, "Unknown attribute.")
	errAttributeValue  = modelled("InvalidAttributeValue", "InvalidAttributeValue", 400, "Invalid attribute value.")
	errOverLimit       = modelled("OverLimit", "OverLimit", 403, "Too many messages in flight.")
	errPurgeInProgress = modelled("PurgeQueueInProgress", "AWS.SimpleQueueService.PurgeQueueInProgress", 403,
		"Only one PurgeQueue operation is allowed every 60 seconds.")
	errResourceNotFound = modelled("ResourceNotFoundException", "ResourceNotFoundException", 404,
		"The resource does not exist.")
	errUnsupported = modelled("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", 400,
		"Unsupported operation.")
	errEmptyBatch = modelled("EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest", 400,
		"There should be at least one entry in the request.")
	errTooManyEntries = modelled("TooManyEntriesInBatchRequest", "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
		400, "Maximum number of entries per request are 10.")
	errIdsNotDistinct = modelled("BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct", 400,
		"Two or more batch entries have the same Id.")
	errInvalidEntryID = modelled("InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId", 400,
		"A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 "+
			"letters long.")
	errBatchTooLong = modelled("BatchRequestTooLong", "AWS.SimpleQueueService.BatchRequestTooLong", 400,
		"Batch requests cannot be longer than 1048576 bytes.")

	errInvalidParameter = common("InvalidParameterValueException", "InvalidParameterValue", 400,
		"A parameter has an invalid value.")
	errMissingParameter = common("MissingRequiredParameterException", "MissingParameter", 400,
		"A required parameter is missing.")
	errMalformed = common("SerializationException", "MalformedInput", 400,
		"The request body is not a JSON object of the expected shape.")
	errUnreadable    = errMalformed.with("The request cannot be read.")
	errUnknownAction = common("UnknownOperationException", "InvalidAction", 400,
		"X-Amz-Target names no action of this server, which speaks the AWS JSON 1.0 protocol only.")
	errQueryProtocol = common("UnknownOperationException", "InvalidAction", 400,
		"This server speaks the AWS JSON 1.0 protocol only, and the client the older query protocol. Use one that "+
			"speaks JSON: boto3 1.34.90, AWS CLI 1.32.90 or 2.16, AWS SDK for Java 2.21.19, for JavaScript 3.447.0, "+
			"for Go v2 of November 2023, or later.")
	errMethod   = common("UnknownOperationException", "InvalidHttpMethod", 405, "Every action is a POST request.")
	errTooLarge = common("RequestEntityTooLargeException", "RequestEntityTooLarge", 413,
		"The request body is too large.")

	errUnavailable = &apiError{shape: "com.amazon.coral.service#ServiceUnavailableException",
		code: "ServiceUnavailable", status: 503, message: "The service is unavailable.", receiver: true}
	errInternal = &apiError{shape: "com.amazon.coral.service#InternalFailure", code: "InternalError", status: 500,
		message: "The request failed for a reason of the service's own.", receiver: true}

	// errDropped closes the connection without any answer.
	errDropped = &apiError{message: "dropped"}
)

// with returns the error with a message that names the value at fault.
func (e *apiError) with(format string, args ...any) *apiError {
	specific := *e
	specific.message = fmt.Sprintf(format, args...)
	return &specific
}

func missing(parameter string) *apiError {
	return errMissingParameter.with("The request must contain the parameter %s.", parameter)
}

func invalid(parameter string, value any, reason string) *apiError {
	return errInvalidParameter.with("Value %v for parameter %s is invalid. Reason: %s", value, parameter, reason)
}

// writeQueryError answers a client of the query protocol, which reads errors in XML.
func writeQueryError(ctx *fasthttp.RequestCtx, e *apiError) {
	ctx.SetStatusCode(e.status)
	ctx.SetContentType("text/xml")
	fmt.Fprintf(ctx, `<?xml version="1.0"?><ErrorResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/">`+
		`<Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message><Detail/></Error><RequestId>%s</RequestId></ErrorResponse>`,
		e.code, e.message, ctx.Response.Header.Peek(requestIDHeader))
}

func writeError(ctx *fasthttp.RequestCtx, e *apiError) {
	fault := ";Sender"
	if e.receiver {
		fault = ";Receiver"
	}
	if e.status == fasthttp.StatusMethodNotAllowed {
		ctx.Response.Header.Set("Allow", "POST")
	}
	ctx.SetStatusCode(e.status)
	ctx.SetContentType(contentType)
	ctx.Response.Header.Set("x-amzn-query-error", e.code+fault)
	body := append([]byte(nil), `{"__type":`...)
	body = appendQuoted(body, e.shape)
	body = append(body, `,"message":`...)
	body = appendQuoted(body, e.message)
	ctx.SetBody(append(body, '}'))
}
