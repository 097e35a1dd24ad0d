// Package cloudformation has tests only: they hold the templates to what CloudFormation and the services demand and to
// what the programs read, as far as that can be done without AWS.
package cloudformation

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// stacks are the templates in the order in which they are deployed. Those but the first import what earlier ones
// export.
var stacks = []string{"bootstrap", "network", "data", "cluster", "services"}

// object is a mapping of a template. Functions are objects of one key, such as Ref or Fn::Sub, also where the template
// has them in short form.
type object = map[string]any

// template is a template as it was written.
type template struct {
	name string
	size int
	root object
}

// section is one of the top-level sections, which may be missing.
func (t *template) section(name string) object {
	section, _ := t.root[name].(object)
	return section
}

// load reads a template.
func load(t testing.TB, name string) *template {
	t.Helper()
	text, err := os.ReadFile(name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parse(name, text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return parsed
}

func loadAll(t testing.TB) map[string]*template {
	t.Helper()
	all := map[string]*template{}
	for _, name := range stacks {
		all[name] = load(t, name)
	}
	return all
}

func parse(name string, text []byte) (*template, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	root, err := plain(doc.Content[0])
	if err != nil {
		return nil, err
	}
	m, ok := root.(object)
	if !ok {
		return nil, fmt.Errorf("it is not a mapping")
	}
	return &template{name: name, size: len(text), root: m}, nil
}

// functions are the intrinsic functions that the templates may use.
var functions = []string{"Sub", "GetAtt", "If", "Equals", "Not", "And", "Or", "FindInMap", "ImportValue", "Join",
	"Select", "Split", "Cidr", "GetAZs"}

// plain turns a YAML node into objects, lists and scalars.
func plain(n *yaml.Node) (any, error) {
	if n.Anchor != "" || n.Kind == yaml.AliasNode {
		return nil, fmt.Errorf("line %d: CloudFormation knows no anchors", n.Line)
	}
	var value any
	switch n.Kind {
	case yaml.MappingNode:
		m := object{}
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if _, ok := m[key]; ok {
				return nil, fmt.Errorf("line %d: there are two %q", n.Content[i].Line, key)
			}
			v, err := plain(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			m[key] = v
		}
		value = m
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			v, err := plain(c)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		value = list
	case yaml.ScalarNode:
		value = n.Value
		switch n.Tag {
		case "!!bool":
			value = n.Value == "true"
			if n.Value != "true" && n.Value != "false" {
				return nil, fmt.Errorf("line %d: write %s as true, false or in quotes", n.Line, n.Value)
			}
		case "!!int", "!!float":
			number, err := strconv.ParseFloat(n.Value, 64)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n.Line, err)
			}
			value = number
		case "!!null":
			return nil, fmt.Errorf("line %d: there is no value", n.Line)
		}
	}
	function, short := strings.CutPrefix(n.Tag, "!")
	if !short || strings.HasPrefix(n.Tag, "!!") {
		return value, nil
	}
	switch {
	case function == "Ref" || function == "Condition":
		return object{function: value}, nil
	case function == "GetAtt":
		resource, attribute, _ := strings.Cut(fmt.Sprint(value), ".")
		value = []any{resource, attribute}
	case !slices.Contains(functions, function):
		return nil, fmt.Errorf("line %d: there is no function %s", n.Line, function)
	}
	return object{"Fn::" + function: value}, nil
}

// call says of an object whether it is a call of a function, and of which.
func call(v any) (function string, arg any) {
	m, ok := v.(object)
	if !ok || len(m) != 1 {
		return "", nil
	}
	for key, value := range m {
		if key == "Ref" || strings.HasPrefix(key, "Fn::") {
			return strings.TrimPrefix(key, "Fn::"), value
		}
	}
	return "", nil
}

// walk calls visit with every value inside v, and with where it is.
func walk(v any, path string, visit func(path string, v any)) {
	visit(path, v)
	switch v := v.(type) {
	case object:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			walk(v[key], path+"."+key, visit)
		}
	case []any:
		for i, item := range v {
			walk(item, fmt.Sprintf("%s[%d]", path, i), visit)
		}
	}
}

// list is v if it is a list, and otherwise a list of v alone, as policies have it.
func list(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	default:
		return []any{v}
	}
}

// at follows keys and indexes into a value, such as at(v, "Properties", 0). It returns nil where there is nothing.
func at(v any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(object)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step >= len(l) {
				return nil
			}
			v = l[step]
		}
	}
	return v
}

var placeholder = regexp.MustCompile(`\$\{([^!][^}]*)\}`)

// resolver works out the values of templates, as if they were deployed with parameters. What only AWS knows becomes a
// word such as <Database.Endpoint.Address>.
type resolver struct {
	t          *template
	parameters map[string]string
	exports    map[string]any // of the templates before
}

// noValue is what AWS::NoValue resolves to: the property is not there.
type noValue struct{}

// Values that are as long as they come.
var pseudo = map[string]any{
	"AWS::AccountId": "123456789012", "AWS::Partition": "aws", "AWS::Region": "ap-southeast-2",
	"AWS::NoValue":   noValue{},
	"AWS::URLSuffix": "amazonaws.com", "AWS::StackName": "stack", "AWS::StackId": "<AWS::StackId>",
}

// deployed is a set of templates with the values that they have when they are deployed. Of each it has the resources
// whose conditions hold, by their logical names.
type deployed map[string]object

// deploy resolves all templates with these parameters; those that a template does not have are not for it.
func deploy(t testing.TB, parameters map[string]string) deployed {
	t.Helper()
	all := deployed{}
	exports := map[string]any{}
	for _, name := range stacks {
		r := resolver{t: load(t, name), parameters: map[string]string{}, exports: exports}
		for p, declaration := range r.t.section("Parameters") {
			value, given := parameters[p]
			if !given {
				fallback := at(declaration, "Default")
				if fallback == nil {
					t.Fatalf("%s: parameter %s is not given", name, p)
				}
				value = text(fallback)
			}
			if pattern := at(declaration, "AllowedPattern"); pattern != nil &&
				!regexp.MustCompile("^(?:"+pattern.(string)+")$").MatchString(value) {
				t.Fatalf("%s: parameter %s: %q does not match %s", name, p, value, pattern)
			}
			if allowed := list(at(declaration, "AllowedValues")); len(allowed) > 0 &&
				!slices.Contains(allowed, any(value)) {
				t.Fatalf("%s: parameter %s: %q is not among %v", name, p, value, allowed)
			}
			r.parameters[p] = value
		}
		resources := object{}
		for logical, resource := range r.t.section("Resources") {
			if c, ok := at(resource, "Condition").(string); ok && !r.condition(t, object{"Condition": c}) {
				continue
			}
			resources[logical] = r.resolve(t, resource)
		}
		all[name] = resources
		for _, output := range r.t.section("Outputs") {
			if export := at(output, "Export", "Name"); export != nil {
				exports[text(r.resolve(t, export))] = r.resolve(t, at(output, "Value"))
			}
		}
	}
	return all
}

func (r resolver) resolve(t testing.TB, v any) any {
	t.Helper()
	switch function, arg := call(v); function {
	case "":
	case "Ref":
		name := arg.(string)
		if value, ok := pseudo[name]; ok {
			return value
		}
		if value, ok := r.parameters[name]; ok {
			return value
		}
		return r.resource(t, name)
	case "GetAtt":
		return fmt.Sprintf("<%s.%s>", at(arg, 0), at(arg, 1))
	case "Sub":
		pattern, local := arg, object{}
		if l, ok := arg.([]any); ok {
			pattern, local = l[0], l[1].(object)
		}
		return placeholder.ReplaceAllStringFunc(pattern.(string), func(s string) string {
			name := s[2 : len(s)-1]
			if value, ok := local[name]; ok {
				return text(r.resolve(t, value))
			}
			resource, attribute, found := strings.Cut(name, ".")
			if found {
				return fmt.Sprintf("<%s.%s>", resource, attribute)
			}
			return text(r.resolve(t, object{"Ref": name}))
		})
	case "If":
		branch := 2
		if r.condition(t, object{"Condition": at(arg, 0)}) {
			branch = 1
		}
		return r.resolve(t, at(arg, branch))
	case "FindInMap":
		return at(r.t.section("Mappings"), text(r.resolve(t, at(arg, 0))), text(r.resolve(t, at(arg, 1))),
			text(r.resolve(t, at(arg, 2))))
	case "ImportValue":
		name := text(r.resolve(t, arg))
		value, ok := r.exports[name]
		if !ok {
			t.Errorf("%s: nothing exports %s", r.t.name, name)
		}
		return value
	case "Join":
		var parts []string
		for _, part := range at(arg, 1).([]any) {
			parts = append(parts, text(r.resolve(t, part)))
		}
		return strings.Join(parts, at(arg, 0).(string))
	default:
		return "<" + function + ">"
	}
	switch v := v.(type) {
	case object:
		m := object{}
		for key, value := range v {
			if resolved := r.resolve(t, value); resolved != (any)(noValue{}) {
				m[key] = resolved
			}
		}
		return m
	case []any:
		l := []any{}
		for _, item := range v {
			if resolved := r.resolve(t, item); resolved != (any)(noValue{}) {
				l = append(l, resolved)
			}
		}
		return l
	}
	return v
}

// resource is what Ref of a resource gives: its name where the template says it, and otherwise a word.
func (r resolver) resource(t testing.TB, logical string) any {
	for _, property := range []string{"QueueName", "ClusterName", "LogGroupName", "AlarmName"} {
		resource := r.t.section("Resources")[logical]
		if name := at(resource, "Properties", property); name != nil && at(resource, "Type") != "AWS::SQS::Queue" {
			return r.resolve(t, name)
		}
	}
	return "<" + logical + ">"
}

func (r resolver) condition(t testing.TB, v any) bool {
	t.Helper()
	if name, ok := at(v, "Condition").(string); ok {
		return r.condition(t, r.t.section("Conditions")[name])
	}
	switch function, arg := call(v); function {
	case "Equals":
		return text(r.resolve(t, at(arg, 0))) == text(r.resolve(t, at(arg, 1)))
	case "Not":
		return !r.condition(t, at(arg, 0))
	default:
		t.Fatalf("%s: the tests know no condition %v", r.t.name, v)
		return false
	}
}

// text is a scalar as CloudFormation writes it.
func text(v any) string {
	if number, ok := v.(float64); ok {
		return strconv.FormatFloat(number, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// number is a scalar as a number.
func number(t testing.TB, v any) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(text(v), 64)
	if err != nil {
		t.Errorf("%v is no number", v)
	}
	return n
}

// ofType are the resources of a type, by their logical names.
func ofType(resources object, kind string) map[string]object {
	found := map[string]object{}
	for logical, resource := range resources {
		if at(resource, "Type") == kind {
			properties, _ := at(resource, "Properties").(object)
			found[logical] = properties
		}
	}
	return found
}

// parameters are those of a test's deployment: names as long as they may be, and what has no default.
func parameters(size string) map[string]string {
	digest := "@sha256:" + strings.Repeat("0", 64)
	return map[string]string{
		"Name": "a" + strings.Repeat("b", 19), "Size": size,
		"GitHubSubject": "repo:owner@1/repository@2:environment:production",
		"CtlImage":      "registry/ctl" + digest, "EdgeImage": "registry/edge" + digest,
		"ShopImage":      "registry/shop" + digest,
		"WorkerImage":    "registry/worker" + digest,
		"CertificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/x",
	}
}

// sizes runs a test for each size.
func sizes(t *testing.T, f func(t *testing.T, d deployed)) {
	for _, size := range []string{"small", "large"} {
		t.Run(size, func(t *testing.T) { f(t, deploy(t, parameters(size))) })
	}
}

// resourceType says what CloudFormation takes for a type of resource: for each property a kind (string, integer,
// number, boolean, json, tag, [x] for a list, {x} for a map, or the name of one of types), with a ! if it is required;
// and the attributes that GetAtt knows.
type resourceType struct {
	Properties map[string]string
	Attributes []string
	Types      map[string]map[string]string
}

// resourceTypes reads testdata/resource-types.json, made from AWS's resource schemas as the npm package
// @aws-cdk/aws-service-spec 0.1.216 has them (Apache-2.0): the types that the templates use, without their texts.
func resourceTypes(t testing.TB) map[string]resourceType {
	t.Helper()
	content, err := os.ReadFile("testdata/resource-types.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]resourceType
	if err := json.Unmarshal(content, &all); err != nil {
		t.Fatal(err)
	}
	return all
}
