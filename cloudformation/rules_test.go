package cloudformation

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"testing"

	"stampede/internal/front"
)

// listenerRule is a rule of the load balancer as it decides by it.
type listenerRule struct {
	name     string
	priority float64
	paths    []*regexp.Regexp
	methods  []string // none for all
	target   string
}

// pathPattern is what a pattern of a path may have
// (https://docs.aws.amazon.com/elasticloadbalancing/latest/application/rule-condition-types.html).
var pathPattern = regexp.MustCompile(`^/[A-Za-z0-9_.$/~"'@:+*?-]{0,127}$`)

// listenerRules reads the rules of the listener for buyers, in the order of their priorities, and holds them to the
// limits of the load balancer.
func listenerRules(t *testing.T, services object) []listenerRule {
	t.Helper()
	var rules []listenerRule
	for logical, p := range ofType(services, "AWS::ElasticLoadBalancingV2::ListenerRule") {
		rule := listenerRule{name: logical, priority: number(t, p["Priority"])}
		if p["ListenerArn"] != "<HttpsListener>" || rule.priority < 1 || rule.priority > 50_000 {
			t.Errorf("%s is of %v, with priority %v", logical, p["ListenerArn"], rule.priority)
		}

		values, wildcards := 0, 0
		for _, condition := range list(p["Conditions"]) {
			switch field := text(at(condition, "Field")); field {
			case "path-pattern":
				for _, v := range list(at(condition, "PathPatternConfig", "Values")) {
					pattern := text(v)
					if !pathPattern.MatchString(pattern) {
						t.Errorf("%s: %q is no pattern", logical, pattern)
					}
					wildcards += strings.Count(pattern, "*") + strings.Count(pattern, "?")
					values++
					expression := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(pattern))
					rule.paths = append(rule.paths, regexp.MustCompile("^(?s:"+expression+")$"))
				}
			case "http-request-method":
				for _, v := range list(at(condition, "HttpRequestMethodConfig", "Values")) {
					rule.methods = append(rule.methods, text(v))
					values++
				}
			default:
				t.Errorf("%s has a condition on %s", logical, field)
			}
		}
		if values == 0 || values > 5 || wildcards > 5 || len(rule.paths) == 0 {
			t.Errorf("%s has %d values with %d wildcards", logical, values, wildcards)
		}

		if len(list(p["Actions"])) != 1 || at(p["Actions"], 0, "Type") != "forward" {
			t.Errorf("%s does %v", logical, p["Actions"])
		}
		rule.target = text(at(p["Actions"], 0, "TargetGroupArn"))
		rules = append(rules, rule)
	}
	slices.SortFunc(rules, func(a, b listenerRule) int { return cmp.Compare(a.priority, b.priority) })
	for i := range rules[1:] {
		if rules[i].priority == rules[i+1].priority {
			t.Errorf("%s and %s have the same priority", rules[i].name, rules[i+1].name)
		}
	}
	return rules
}

// target is where the load balancer sends a request: by the first rule whose conditions all hold, and else by default.
// Each condition holds if one of its values fits. A path is compared as it came, without its query.
func target(rules []listenerRule, method, path string) (group, rule string) {
	for _, r := range rules {
		fits := slices.ContainsFunc(r.paths, func(p *regexp.Regexp) bool { return p.MatchString(path) })
		if fits && (r.methods == nil || slices.Contains(r.methods, method)) {
			return r.target, r.name
		}
	}
	return "<EdgeTargets>", "default"
}

// TestListenerRules: the load balancer sends each request to the process that the table of routes names.
func TestListenerRules(t *testing.T) {
	t.Parallel()
	services := deploy(t, parameters("small"))["services"]
	rules := listenerRules(t, services)
	if at(services["HttpsListener"], "Properties", "DefaultActions", 0, "TargetGroupArn") != "<EdgeTargets>" {
		t.Error("what no rule fits is not for the edge")
	}

	paths := []string{
		"", "/", "/nowhere", "/api", "/api/", "/api/login/", "/api/logi", "/api/loginx", "/API/login", "/api//login",
		"//api/login", "/api/%6Cogin", "/api/login%20", "/api/./login", "/api/orders/../login", "/api/login;a=b",
		"/api/logout-", "/api/password/reset", "/api/me/", "/api/products/", "/api/products//", "/api/products/1/",
		"/api/products/1/2", "/api/products/1/restocks", "/api/products/1/restocks/", "/api/products//restocks/a",
		"/api/products///restocks/a", "/api/products/1/restocks//", "/api/products/1/restocks/a/",
		"/api/products/1/restocks/a/b", "/api/products/1/2/restocks/a", "/api/products/restocks/restocks/restocks",
		"/api/products/restocks/restocks/restocks/restocks", "/api/products/1/restocks/restocks/a",
		"/api/products/%2F/restocks/%2F", "/api/products/1/restock/a", "/api/products/1/restocksx/a",
		"/api/productsx/1", "/api/orders//cancel", "/api/orders/1/2/cancel", "/api/orders/1/2/payments",
		"/api/orders//refunds/a", "/api/orders/1/refunds", "/api/orders/1/refunds/", "/api/orders/1/2/refunds/a",
		"/api/orders/1/refunds/a/b", "/api/orders/refunds/refunds/refunds/refunds", "/api/payments//return",
		"/api/payments/1/2/return", "/webhooks/", "/webhooks/a/b", "/webhooks/a/",
		"/api/products/?", "/api/products/*", "/api/products/a\nb",
	}
	for _, r := range front.Routes {
		path := strings.NewReplacer("{", "", "}", "").Replace(r.Pattern)
		paths = append(paths, path, path+"/", path+"x", path+"/x", "/x"+path, strings.ToUpper(path))
	}
	methods := []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW", "post"}
	targets := map[string]string{front.Edge: "<EdgeTargets>", front.Shop: "<ShopTargets>"}
	used := map[string]bool{}
	for _, path := range paths {
		for _, method := range methods {
			want := targets[front.Process(method, path)]
			got, rule := target(rules, method, path)
			if got != want {
				t.Errorf("%s %q is sent to %s by %s, and is for %s", method, path, got, rule, want)
			}
			used[rule] = true
		}
	}
	for _, r := range rules {
		if !used[r.name] {
			t.Errorf("%s decides nothing", r.name)
		}
	}
}
