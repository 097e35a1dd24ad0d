package cloudformation

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReferences: whatever a template refers to is there, and whatever is there is referred to.
func TestReferences(t *testing.T) {
	types := resourceTypes(t)
	exported, imported := map[string]string{}, map[string]bool{}
	for _, stack := range stacks {
		tpl := load(t, stack)
		resources, parameters := tpl.section("Resources"), tpl.section("Parameters")
		mappings, conditions := tpl.section("Mappings"), tpl.section("Conditions")
		used := map[string]bool{}
		use := func(section, name string) { used[section+" "+name] = true }
		refer := func(path, name string, local object) {
			if _, ok := local[name]; ok {
				return
			}
			if _, ok := pseudo[name]; ok {
				return
			}
			resource, attribute, isAttribute := strings.Cut(name, ".")
			if !isAttribute && parameters[name] != nil {
				use("Parameters", name)
				return
			}
			kind, _ := at(resources[resource], "Type").(string)
			switch {
			case kind == "":
				t.Errorf("%s%s: there is no %s", stack, path, resource)
			case isAttribute && !slices.Contains(types[kind].Attributes, attribute):
				t.Errorf("%s%s: a %s has no attribute %s", stack, path, kind, attribute)
			}
			condition, _ := at(resources[resource], "Condition").(string)
			if condition != "" && !strings.Contains(path, "Fn::If") {
				t.Errorf("%s%s: %s is not always there", stack, path, resource)
			}
		}
		condition := func(path string, name any) {
			if conditions[fmt.Sprint(name)] == nil {
				t.Errorf("%s%s: there is no condition %v", stack, path, name)
			}
			use("Conditions", fmt.Sprint(name))
		}
		for _, section := range []string{"Resources", "Outputs", "Conditions"} {
			walk(tpl.section(section), "."+section, func(path string, v any) {
				switch function, arg := call(v); function {
				case "Ref":
					refer(path, arg.(string), nil)
				case "GetAtt":
					refer(path, fmt.Sprintf("%s.%s", at(arg, 0), at(arg, 1)), nil)
				case "Sub":
					pattern, local := arg, object{}
					if l, ok := arg.([]any); ok {
						pattern, local = l[0], l[1].(object)
					}
					found := placeholder.FindAllStringSubmatch(pattern.(string), -1)
					if len(found) == 0 {
						t.Errorf("%s%s: there is nothing to put in", stack, path)
					}
					for _, m := range found {
						refer(path, m[1], local)
					}
					for name := range local {
						if !strings.Contains(pattern.(string), "${"+name+"}") {
							t.Errorf("%s%s: %s is put in nowhere", stack, path, name)
						}
					}
				case "FindInMap":
					name := at(arg, 0).(string)
					use("Mappings", name)
					for key, row := range mappings[name].(object) {
						if at(row, at(arg, 2)) == nil {
							t.Errorf("%s%s: there is no %s %s %s", stack, path, name, key, at(arg, 2))
						}
					}
					if mappings[name] == nil {
						t.Errorf("%s%s: there is no mapping %s", stack, path, name)
					}
				case "If":
					condition(path, at(arg, 0))
				case "ImportValue":
					name := importName(arg)
					if from, ok := exported[name]; !ok || from == stack {
						t.Errorf("%s%s: no stack before it exports %s", stack, path, name)
					}
					imported[name] = true
				}
			})
		}
		for name, resource := range resources {
			if c := at(resource, "Condition"); c != nil {
				condition(".Resources."+name, c)
			}
			for _, other := range list(at(resource, "DependsOn")) {
				refer(".Resources."+name+".DependsOn", other.(string), nil)
			}
		}
		for _, section := range []string{"Parameters", "Mappings", "Conditions"} {
			for name := range tpl.section(section) {
				if !used[section+" "+name] {
					t.Errorf("%s: nothing uses %s of %s", stack, name, section)
				}
			}
		}
		for name, output := range tpl.section("Outputs") {
			export := at(output, "Export", "Name")
			if export == nil {
				continue
			}
			if got := importName(export); got != "${Name}-"+name {
				t.Errorf("%s: output %s is exported as %s", stack, name, got)
			}
			exported[importName(export)] = stack
		}
		// A value of a row is used by one of the lookups.
		for name, rows := range mappings {
			for key, row := range rows.(object) {
				for column := range row.(object) {
					found := false
					walk(tpl.root, "", func(_ string, v any) {
						if function, arg := call(v); function == "FindInMap" && at(arg, 0) == name &&
							at(arg, 2) == column {
							found = true
						}
					})
					if !found {
						t.Errorf("%s: nothing looks up %s %s %s", stack, name, key, column)
					}
				}
			}
		}
	}
	for name, stack := range exported {
		if !imported[name] {
			t.Errorf("%s: nothing imports %s", stack, name)
		}
	}
}

// TestCycles: resources can be made one after another.
func TestCycles(t *testing.T) {
	for _, stack := range stacks {
		resources := load(t, stack).section("Resources")
		needs := map[string][]string{}
		for logical, resource := range resources {
			need := func(name string) {
				name, _, _ = strings.Cut(name, ".")
				if resources[name] != nil {
					needs[logical] = append(needs[logical], name)
				}
			}
			walk(resource, "", func(_ string, v any) {
				switch function, arg := call(v); function {
				case "Ref":
					need(arg.(string))
				case "GetAtt":
					need(at(arg, 0).(string))
				case "Sub":
					pattern, _ := list(arg)[0].(string)
					for _, m := range placeholder.FindAllStringSubmatch(pattern, -1) {
						need(m[1])
					}
				}
			})
			for _, other := range list(at(resource, "DependsOn")) {
				need(other.(string))
			}
		}
		done := map[string]bool{}
		var visit func(name string, way []string)
		visit = func(name string, way []string) {
			if slices.Contains(way, name) {
				t.Fatalf("%s: %s need one another", stack, strings.Join(append(way, name), " → "))
			}
			if done[name] {
				return
			}
			for _, other := range needs[name] {
				visit(other, append(way, name))
			}
			done[name] = true
		}
		for name := range resources {
			visit(name, nil)
		}
	}
}

// importName is the pattern of the name of an export.
func importName(v any) string {
	_, pattern := call(v)
	return fmt.Sprint(pattern)
}

// TestProperties: every resource is of a known type, and has the properties that are required, and only such as exist.
func TestProperties(t *testing.T) {
	types := resourceTypes(t)
	for _, stack := range stacks {
		for name, resource := range load(t, stack).section("Resources") {
			kind, _ := at(resource, "Type").(string)
			known, ok := types[kind]
			if !ok {
				t.Errorf("%s: %s is a %s, which testdata/resource-types.json does not have", stack, name, kind)
				continue
			}
			for key := range resource.(object) {
				if !slices.Contains([]string{"Type", "Properties", "Condition", "DependsOn", "DeletionPolicy",
					"UpdateReplacePolicy", "UpdatePolicy"}, key) {
					t.Errorf("%s: %s has a %s", stack, name, key)
				}
			}
			properties, ok := at(resource, "Properties").(object)
			if !ok {
				t.Errorf("%s: %s has no properties", stack, name)
				continue
			}
			checkProperties(t, stack+": "+name, known, known.Properties, properties)
		}
	}
}

func checkProperties(t *testing.T, path string, known resourceType, want map[string]string, got object) {
	for name, kind := range want {
		if strings.HasSuffix(kind, "!") && got[name] == nil {
			t.Errorf("%s has no %s", path, name)
		}
	}
	for name, value := range got {
		kind, ok := want[name]
		if !ok {
			t.Errorf("%s: there is no property %s", path, name)
			continue
		}
		checkValue(t, path+"."+name, known, strings.TrimSuffix(kind, "!"), value)
	}
}

func checkValue(t *testing.T, path string, known resourceType, kind string, v any) {
	switch function, arg := call(v); function {
	case "":
	case "If":
		for _, branch := range arg.([]any)[1:] {
			checkValue(t, path, known, kind, branch)
		}
		return
	case "Sub", "Join", "Select":
		if strings.HasPrefix(kind, "[") || known.Types[kind] != nil {
			t.Errorf("%s: %s gives text, want %s", path, function, kind)
		}
		return
	default:
		return // only AWS knows
	}
	ok := false
	switch {
	case kind == "json":
		ok = true
	case strings.HasPrefix(kind, "["):
		var items []any
		if items, ok = v.([]any); ok {
			for i, item := range items {
				checkValue(t, fmt.Sprintf("%s[%d]", path, i), known, kind[1:len(kind)-1], item)
			}
		}
	case strings.HasPrefix(kind, "{"):
		_, ok = v.(object)
	case kind == "tag":
		ok = at(v, "Key") != nil && at(v, "Value") != nil
	case kind == "boolean":
		_, ok = v.(bool)
	case kind == "integer", kind == "number":
		_, ok = v.(float64)
	case kind == "string":
		_, ok = v.(string)
	case known.Types[kind] != nil:
		var m object
		if m, ok = v.(object); ok {
			checkProperties(t, path, known, known.Types[kind], m)
		}
	default:
		t.Errorf("%s: the tests know no %q", path, kind)
		return
	}
	if !ok {
		t.Errorf("%s: %v is no %s", path, v, kind)
	}
}

// TestTemplateLimits: what CloudFormation itself takes, as of
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html.
func TestTemplateLimits(t *testing.T) {
	logical := regexp.MustCompile(`^[A-Za-z0-9]{1,255}$`)
	names := map[string]string{}
	for stack, tpl := range loadAll(t) {
		if tpl.size > 51_200 {
			t.Errorf("%s has %d bytes; more than 51,200 need a bucket", stack, tpl.size)
		}
		if tpl.root["AWSTemplateFormatVersion"] != "2010-09-09" {
			t.Errorf("%s has no version", stack)
		}
		if d, _ := tpl.root["Description"].(string); d == "" || len(d) > 1024 {
			t.Errorf("%s: a description of %d characters", stack, len(d))
		}
		for section, most := range map[string]int{"Resources": 500, "Parameters": 200, "Outputs": 200,
			"Mappings": 200} {
			if n := len(tpl.section(section)); n > most {
				t.Errorf("%s has %d %s", stack, n, section)
			}
			for name := range tpl.section(section) {
				if !logical.MatchString(name) {
					t.Errorf("%s: %q is no logical name", stack, name)
				}
			}
		}
		for key := range tpl.root {
			if !slices.Contains([]string{"AWSTemplateFormatVersion", "Description", "Parameters", "Mappings",
				"Conditions", "Resources", "Outputs"}, key) {
				t.Errorf("%s has a section %s", stack, key)
			}
		}
		for name, p := range tpl.section("Parameters") {
			for key := range p.(object) {
				if !slices.Contains([]string{"Type", "Default", "Description", "AllowedPattern", "AllowedValues",
					"ConstraintDescription", "MinValue", "MaxValue", "MaxLength"}, key) {
					t.Errorf("%s: parameter %s has a %s", stack, name, key)
				}
			}
			kind, d := at(p, "Type"), at(p, "Description")
			if kind != "String" && kind != "Number" || d == nil {
				t.Errorf("%s: parameter %s is a %v with description %v", stack, name, kind, d)
			}
			// The same parameter means the same in every stack.
			rule := fmt.Sprint(kind, at(p, "Default"), at(p, "AllowedPattern"), at(p, "AllowedValues"),
				at(p, "MaxLength"))
			if other, ok := names[name]; ok && other != rule {
				t.Errorf("%s: parameter %s is not the same as in another stack", stack, name)
			}
			names[name] = rule
		}
	}
}

// TestParse: what is no template is refused.
func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"a: &x 1\nb: *x": "anchors", "a: 1\na: 2": "two", "a: !Frobnicate x": "no function", "a:": "no value",
		"- a": "not a mapping",
	} {
		if _, err := parse("x", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
}
