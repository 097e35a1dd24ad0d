// Package contract holds answers over HTTP against an OpenAPI 3.1 document. It is for tests.
//
// What the document does not have, an answer must not have either: statuses, headers, content types, members of bodies
// and, by their enumeration for each status, problem codes. Requests are not judged, since tests send bad ones on
// purpose.
//
// Besides its operations the document is to have these components/responses, for requests that reach none: NotFound
// and MethodNotAllowed, Options for the answer to OPTIONS, and Default for what may befall any request.
package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// Contract is a document, ready to judge.
type Contract struct {
	document map[string]any
	compiler *jsonschema.Compiler
	paths    map[string]map[string]operation // by template and method

	notFound, notAllowed, options operation
}

// operation is the answers of one, by status.
type operation map[string]answer

type answer struct {
	headers  map[string]header
	contents map[string]*jsonschema.Schema // by Content-Type
}

type header struct {
	required bool
	schema   *jsonschema.Schema
}

// methods are what a path item may have (OpenAPI 3.1, section 4.8.9).
var methods = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}

// transportHeaders belong to HTTP itself, or say the same of every answer, and are no matter of the contract.
var transportHeaders = []string{
	"Connection", "Content-Length", "Content-Type", "Date", "Server", "Transfer-Encoding",
	"X-Content-Type-Options", "Vary",
}

// root is the name of the document for the references in it.
const root = "https://contract.invalid/openapi.yaml"

// Load reads a document in YAML, with every schema of its answers.
func Load(document []byte) (*Contract, error) {
	var content any
	if err := yaml.Unmarshal(document, &content); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(content) // what JSON cannot say, a schema cannot mean
	if err != nil {
		return nil, err
	}
	if content, err = jsonschema.UnmarshalJSON(bytes.NewReader(plain)); err != nil {
		return nil, err
	}
	c := &Contract{compiler: jsonschema.NewCompiler(), paths: map[string]map[string]operation{}}
	c.document, _ = content.(map[string]any)
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource(root, content); err != nil {
		return nil, err
	}
	items, _ := c.document["paths"].(map[string]any)
	for path, item := range items {
		c.paths[path] = map[string]operation{}
		operations, _ := item.(map[string]any)
		for _, method := range methods {
			if _, ok := operations[method]; !ok {
				continue
			}
			o, err := c.operation(join("/paths", path, method, "responses"))
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", method, path, err)
			}
			c.paths[path][strings.ToUpper(method)] = o
		}
	}
	c.notFound, err = c.operation("/components/responses", "404", "NotFound", "default", "Default")
	if err != nil {
		return nil, err
	}
	c.notAllowed, err = c.operation("/components/responses", "405", "MethodNotAllowed", "default", "Default")
	if err != nil {
		return nil, err
	}
	c.options, err = c.operation("/components/responses", "200", "Options", "default", "Default")
	return c, err
}

// operation reads the answers below a pointer: all of them, or those with these names for these statuses.
func (c *Contract) operation(pointer string, names ...string) (operation, error) {
	if len(names) == 0 {
		responses, _ := c.find(pointer)
		for status := range responses {
			names = append(names, status, status)
		}
	}
	o := operation{}
	for pair := range slices.Chunk(names, 2) {
		a, err := c.answer(join(pointer, pair[1]))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pair[0], err)
		}
		o[pair[0]] = a
	}
	return o, nil
}

func (c *Contract) answer(pointer string) (answer, error) {
	a := answer{map[string]header{}, map[string]*jsonschema.Schema{}}
	response, pointer := c.find(pointer)
	if response == nil {
		return a, fmt.Errorf("%s is missing", pointer)
	}
	headers, _ := response["headers"].(map[string]any)
	for name := range headers {
		node, at := c.find(join(pointer, "headers", name))
		schema, err := c.compiler.Compile(root + "#" + join(at, "schema"))
		if err != nil {
			return a, err
		}
		required, _ := node["required"].(bool)
		a.headers[http.CanonicalHeaderKey(name)] = header{required, schema}
	}
	contents, _ := response["content"].(map[string]any)
	for mediaType := range contents {
		schema, err := c.compiler.Compile(root + "#" + join(pointer, "content", mediaType, "schema"))
		if err != nil {
			return a, err
		}
		a.contents[mediaType] = schema
	}
	return a, nil
}

// find returns the object at a pointer (RFC 6901), or the one that it refers to, and where that is.
func (c *Contract) find(pointer string) (map[string]any, string) {
	node := c.document
	for name := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		node, _ = node[strings.NewReplacer("~1", "/", "~0", "~").Replace(name)].(map[string]any)
	}
	if ref, ok := node["$ref"].(string); ok {
		return c.find(strings.TrimPrefix(ref, "#"))
	}
	return node, pointer
}

// join adds names to a pointer.
func join(pointer string, names ...string) string {
	for _, name := range names {
		pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
	}
	return pointer
}

// Operations are the operations of the document, as in "GET /products/{id}", sorted.
func (c *Contract) Operations() []string {
	var all []string
	for path, operations := range c.paths {
		for method := range operations {
			all = append(all, method+" "+path)
		}
	}
	slices.Sort(all)
	return all
}

// Check says what is in an answer that is not in the contract, or nil. The path is without its query.
func (c *Contract) Check(method, path string, status int, fields http.Header, body []byte) error {
	if err := c.check(method, path, status, fields, body); err != nil {
		return fmt.Errorf("%s %s: the contract does not have this answer: %w: %d %.2000s", method, path, err, status,
			body)
	}
	return nil
}

func (c *Contract) check(method, path string, status int, fields http.Header, body []byte) error {
	a, ok := c.route(method, path)[strconv.Itoa(status)]
	if !ok {
		if a, ok = c.route(method, path)["default"]; !ok {
			return errors.New("the status")
		}
	}
	for name, h := range a.headers {
		if h.required && len(fields.Values(name)) == 0 {
			return fmt.Errorf("%s is missing", name)
		}
	}
	for name, values := range fields {
		h, known := a.headers[name]
		switch {
		case slices.Contains(transportHeaders, name), strings.HasPrefix(name, "Access-Control-"):
		case !known && name == "Cache-Control" && fields.Get(name) == "no-store":
			// what holds where nothing else is said
		case !known:
			return fmt.Errorf("the header %s: %q", name, values)
		default:
			if err := h.schema.Validate(headerValue(values)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if method == http.MethodHead || len(a.contents) == 0 {
		if len(body) > 0 {
			return errors.New("a body")
		}
		return nil
	}
	mediaType := fields.Get("Content-Type")
	schema, ok := a.contents[mediaType]
	if !ok {
		return fmt.Errorf("Content-Type %q", mediaType)
	}
	if !strings.HasSuffix(mediaType, "json") {
		return schema.Validate(string(body))
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	if problem, ok := value.(map[string]any); ok && mediaType == "application/problem+json" &&
		problem["status"] != json.Number(strconv.Itoa(status)) {
		return errors.New("another status in the body")
	}
	return schema.Validate(value)
}

// route returns the answers to a request.
func (c *Contract) route(method, path string) operation {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for template, operations := range c.paths {
		if !matches(template, path) {
			continue
		}
		if o, ok := operations[method]; ok {
			return o
		}
		if method == http.MethodOptions {
			return c.options
		}
		return c.notAllowed
	}
	return c.notFound
}

func matches(template, path string) bool {
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	return slices.EqualFunc(want, got, func(want, got string) bool {
		return want == got || strings.HasPrefix(want, "{") && got != ""
	})
}

// headerValue is a header as a schema sees it: a number if it is written as one.
func headerValue(values []string) any {
	value := strings.Join(values, ", ")
	if _, err := strconv.ParseUint(value, 10, 63); err == nil {
		return json.Number(value)
	}
	return value
}

// CheckExamples holds every example of the document against the schema beside it, and says how many there are.
func (c *Contract) CheckExamples() (int, error) {
	return c.checkExamples("", c.document)
}

func (c *Contract) checkExamples(pointer string, node map[string]any) (int, error) {
	examples := map[string]any{}
	if example, ok := node["example"]; ok {
		examples["example"] = example
	}
	named, _ := node["examples"].(map[string]any)
	for name, example := range named {
		examples[name] = example.(map[string]any)["value"]
	}
	count := len(examples)
	var errs []error
	if _, ok := node["schema"]; ok {
		schema, err := c.compiler.Compile(root + "#" + join(pointer, "schema"))
		if err != nil {
			return 0, err
		}
		for name, example := range examples {
			if err := schema.Validate(example); err != nil {
				errs = append(errs, fmt.Errorf("%s, %s: %w", pointer, name, err))
			}
		}
	} else if count > 0 {
		errs = append(errs, fmt.Errorf("%s has an example and no schema", pointer))
	}
	for _, name := range slices.Sorted(maps.Keys(node)) {
		child, _ := node[name].(map[string]any)
		if name == "example" || name == "examples" || name == "schema" || child == nil {
			continue
		}
		n, err := c.checkExamples(join(pointer, name), child)
		count += n
		errs = append(errs, err)
	}
	list, _ := node["parameters"].([]any)
	for i, parameter := range list {
		n, err := c.checkExamples(join(pointer, "parameters", strconv.Itoa(i)), parameter.(map[string]any))
		count += n
		errs = append(errs, err)
	}
	return count, errors.Join(errs...)
}

// Transport reports every answer of next that is not in the contract, and passes all of them on.
func (c *Contract) Transport(next http.RoundTripper, report func(error)) http.RoundTripper {
	return transport{c, next, report}
}

type transport struct {
	contract *Contract
	next     http.RoundTripper
	report   func(error)
}

func (t transport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		return nil, err // half an answer is none
	}
	if err := t.contract.Check(request.Method, request.URL.EscapedPath(), response.StatusCode, response.Header,
		body); err != nil {
		t.report(err)
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	return response, nil
}

// CloseIdleConnections is for http.Client, which asks its transport for it.
func (t transport) CloseIdleConnections() {
	(&http.Client{Transport: t.next}).CloseIdleConnections()
}
