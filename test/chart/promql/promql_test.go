package promql

import (
	"encoding/json"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

var (
	root  = filepath.Join("..", "..", "..")
	files = filepath.Join(root, "charts", "elector", "files")
	parse = parser.NewParser(parser.Options{})
)

// rules returns the alerts. Their form is checked as Prometheus does when it loads them, templates of annotations included.
func rules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(files, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(data, false, model.UTF8Validation, parse, slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	var all []rulefmt.Rule
	for _, group := range groups.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no alerts")
	}
	return all
}

// panel is what the test needs of a dashboard's panel.
type panel struct {
	ID      int
	Type    string
	Title   string
	GridPos struct{ H, W, X, Y int }
	Targets []struct{ Expr, RefID string }
}

func panels(t *testing.T) []panel {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(files, "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct{ Panels []panel }
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Panels) == 0 {
		t.Fatal("the dashboard has no panels")
	}
	return dashboard.Panels
}

// exported returns the names of metrics in the code.
func exported(t *testing.T) []string {
	t.Helper()
	name := regexp.MustCompile(`"(elector_[a-z_]+)`)
	names := map[string]bool{}
	for _, dir := range []string{"elector", "cmd"} {
		code := os.DirFS(filepath.Join(root, dir))
		if err := fs.WalkDir(code, ".", func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := fs.ReadFile(code, path)
			for _, m := range name.FindAllSubmatch(source, -1) {
				names[string(m[1])] = true
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if len(names) == 0 {
		t.Fatal("the code has no metrics")
	}
	return slices.Sorted(maps.Keys(names))
}

// checkMetrics reports expressions that do not parse, and metrics that do not exist.
func checkMetrics(t *testing.T, metrics []string, where, expression string) {
	t.Helper()
	parsed, err := parse.ParseExpr(expression)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		name := selector.Name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok {
				name = base
			}
		}
		if !slices.Contains(metrics, name) {
			t.Errorf("%s: there is no metric %s", where, selector.Name)
		}
		return nil
	})
}

func TestAlertsNameMetrics(t *testing.T) {
	t.Parallel()
	metrics := exported(t)
	for _, rule := range rules(t) {
		checkMetrics(t, metrics, rule.Alert, rule.Expr)
		for _, key := range []string{"summary", "description"} {
			if rule.Annotations[key] == "" {
				t.Errorf("%s has no %s", rule.Alert, key)
			}
		}
		if !slices.Contains([]string{"info", "warning", "critical"}, rule.Labels["severity"]) {
			t.Errorf("%s has the severity %q", rule.Alert, rule.Labels["severity"])
		}
	}
}

func TestDashboard(t *testing.T) {
	t.Parallel()
	metrics := exported(t)
	// As Grafana does.
	variables := strings.NewReplacer("$__rate_interval", "1m", "$namespace", ".*")
	seen := map[int]string{}
	var shown strings.Builder
	for _, p := range panels(t) {
		if other, ok := seen[p.ID]; ok {
			t.Errorf("panels %q and %q have the same id", other, p.Title)
		}
		seen[p.ID] = p.Title
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q sticks out", p.Title)
		}
		if len(p.Targets) == 0 && p.Type != "row" {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			checkMetrics(t, metrics, p.Title, variables.Replace(target.Expr))
			shown.WriteString(target.Expr)
		}
	}
	for _, metric := range metrics {
		if !strings.Contains(shown.String(), metric) {
			t.Errorf("the dashboard does not show %s", metric)
		}
	}
}

// healthy is what is scraped, once a minute, while all is well: a handover in which both pods look like leaders for one scrape, a
// denial long ago, a pod that takes a while to get its grant.
var healthy = []string{
	`elector_webhook_clock_ahead_seconds{pod="manager-0"} 2x60`,
	`elector_webhook_certificate_expiry_timestamp_seconds{pod="manager-0"} 604800x60`,
	`elector_webhook_certificate_expiry_timestamp_seconds{pod="manager-1"} 604900x60`,
	`elector_webhook_admissions_total{kind="Pod",outcome="changed",pod="manager-0"} 0+5x60`,
	`elector_webhook_admissions_total{kind="Pod",outcome="denied",reason="mode",pod="manager-0"} 3x60`,
	`elector_webhook_grant_latency_seconds_bucket{le="0.1",pod="manager-0"} 0+5x60`,
	`elector_webhook_grant_latency_seconds_bucket{le="10",pod="manager-0"} 0+5x60`,
	`elector_webhook_grant_latency_seconds_bucket{le="+Inf",pod="manager-0"} 0+5x60`,
	`elector_is_leader{namespace="shop",lock="web",mode="lease",pod="web-0"} 1x30 0x30`,
	`elector_is_leader{namespace="shop",lock="web",mode="lease",pod="web-1"} 0x29 1x31`,
	`elector_claim_losses_total{namespace="shop",pod="web-0",reason="stopped"} 0x30 1x30`,
	`elector_claim_losses_total{namespace="shop",pod="web-0",reason="expired"} 0x60`,
	`elector_renew_duration_seconds_bucket{namespace="shop",pod="web-0",le="0.005"} 0+18x60`,
	`elector_renew_duration_seconds_bucket{namespace="shop",pod="web-0",le="5"} 0+18x60`,
	`elector_renew_duration_seconds_bucket{namespace="shop",pod="web-0",le="+Inf"} 0+18x60`,
}

func TestAlertsFire(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		series []string // instead of those of the same metric in healthy
		want   []string // alerts that fire at some time of the hour
		reason string
	}{
		"all is well": {nil, nil, "an alert that fires then is not looked at"},
		"manager gone": {
			[]string{`elector_webhook_certificate_expiry_timestamp_seconds{pod="manager-0"} 604800x40 _x20`},
			[]string{"ElectorManagerAbsent"}, "no replica is scraped any more",
		},
		"one replica gone": {
			[]string{`elector_webhook_certificate_expiry_timestamp_seconds{pod="manager-0"} 604800x40 _x20`, `elector_webhook_certificate_expiry_timestamp_seconds{pod="manager-1"} 604800x60`},
			nil, "the other one answers",
		},
		"certificate not renewed": {
			[]string{`elector_webhook_certificate_expiry_timestamp_seconds{pod="manager-0"} 604800x60`, `elector_webhook_certificate_expiry_timestamp_seconds{pod="manager-1"} 88200x60`},
			[]string{"ElectorCertificateExpires"}, "one replica's is enough",
		},
		"no certificate": {
			[]string{`elector_webhook_certificate_expiry_timestamp_seconds{pod="manager-0"} 0x60`},
			[]string{"ElectorCertificateExpires"}, "0 means none",
		},
		"clock ahead": {
			[]string{`elector_webhook_clock_ahead_seconds{pod="manager-0"} 7200x60`},
			[]string{"ElectorClockOff"}, "nothing is broken by it, yet",
		},
		"clock behind": {
			[]string{`elector_webhook_clock_ahead_seconds{pod="manager-0"} -7200x60`},
			[]string{"ElectorClockOff"}, "the same",
		},
		"failed once": {
			[]string{`elector_webhook_admissions_total{kind="Pod",outcome="failed",pod="manager-0"} _x20 1x40`},
			[]string{"ElectorAdmissionFails"}, "the first failure brings a new counter, which begins at 1",
		},
		"failed again": {
			[]string{`elector_webhook_admissions_total{kind="Pod",outcome="failed",pod="manager-0"} 4x20 5x40`},
			[]string{"ElectorAdmissionFails"}, "a counter that was there grows",
		},
		"denied once": {
			[]string{`elector_webhook_admissions_total{kind="Pod",outcome="denied",reason="mode",pod="manager-0"} _x20 1x40`},
			[]string{"ElectorAdmissionDenied"}, "the first denial brings a new counter, which begins at 1",
		},
		"grants take 20s": {
			[]string{
				`elector_webhook_grant_latency_seconds_bucket{le="10",pod="manager-0"} 0x60`,
				`elector_webhook_grant_latency_seconds_bucket{le="30",pod="manager-0"} 0+5x60`,
				`elector_webhook_grant_latency_seconds_bucket{le="+Inf",pod="manager-0"} 0+5x60`,
			},
			[]string{"ElectorGrantsSlow"}, "candidates wait for their permission",
		},
		"leader unfit": {
			[]string{`elector_webhook_unfit_leaders{pod="manager-0"} 0x10 2x50`, `elector_webhook_unfit_leaders{pod="manager-1"} 0x60`},
			[]string{"ElectorLeaderUnfit"}, "leadership should have moved long ago",
		},
		"leaders unfit for a while": {
			[]string{`elector_webhook_unfit_leaders{pod="manager-0"} 0x10 1x10 0x40`},
			nil, "it moves, or the app comes back",
		},
		"nobody leads": {
			[]string{`elector_is_leader{namespace="shop",lock="web",mode="lease",pod="web-0"} 1x30 0x30`, `elector_is_leader{namespace="shop",lock="web",mode="lease",pod="web-1"} 0x60`},
			[]string{"ElectorNoLeader"}, "candidates run",
		},
		"scaled to nothing": {
			[]string{`elector_is_leader{namespace="shop",lock="web",mode="lease",pod="web-0"} 1x30 _x30`},
			nil, "no candidate, no leader",
		},
		"two lead": {
			[]string{`elector_is_leader{namespace="shop",lock="web",mode="lease",pod="web-0"} 1x60`, `elector_is_leader{namespace="shop",lock="web",mode="lease",pod="web-1"} 0x29 1x31`},
			[]string{"ElectorTwoLeaders"}, "for longer than scrapes are apart",
		},
		"same lock in two namespaces": {
			[]string{`elector_is_leader{namespace="shop",lock="web",mode="lease",pod="web-0"} 1x60`, `elector_is_leader{namespace="store",lock="web",mode="lease",pod="web-0"} 1x60`},
			nil, "they are two elections",
		},
		"claims run out": {
			[]string{`elector_claim_losses_total{namespace="shop",pod="web-0",reason="expired"} 0x20 1 2 3 4x37`},
			[]string{"ElectorClaimsEndUnasked"}, "again and again",
		},
		"rollouts": {
			[]string{`elector_claim_losses_total{namespace="shop",pod="web-0",reason="resigned"} 0+1x60`},
			nil, "a claim that is resigned ends as asked",
		},
		"renewals take 4s": {
			[]string{
				`elector_renew_duration_seconds_bucket{namespace="shop",pod="web-0",le="2.5"} 0x60`,
				`elector_renew_duration_seconds_bucket{namespace="shop",pod="web-0",le="5"} 0+18x60`,
				`elector_renew_duration_seconds_bucket{namespace="shop",pod="web-0",le="+Inf"} 0+18x60`,
			},
			[]string{"ElectorRenewalsSlow"}, "the renew-deadline is near",
		},
	}
	fired := map[string]bool{}
	for _, test := range tests {
		for _, alert := range test.want {
			fired[alert] = true
		}
	}
	for _, rule := range rules(t) {
		if !fired[rule.Alert] {
			t.Errorf("no case fires %s", rule.Alert)
		}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var series []string
			for _, s := range healthy {
				if !slices.ContainsFunc(test.series, func(instead string) bool { return metricOf(instead) == metricOf(s) }) {
					series = append(series, s)
				}
			}
			var got []string
			store := load(t, append(series, test.series...))
			for _, rule := range rules(t) {
				if fires(t, store, rule) {
					got = append(got, rule.Alert)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v fire, want %v: %s", got, test.want, test.reason)
			}
		})
	}
}

func metricOf(series string) string {
	name, _, _ := strings.Cut(series, "{")
	return name
}

// start is the time of the first scrape.
var start = time.Unix(0, 0)

const (
	scrapeInterval = time.Minute
	// history is what Prometheus knows before alerts are looked at. To one that begins, every counter is new.
	history = 15 * time.Minute
)

// fires evaluates an alert once a minute until an hour is over, as Prometheus does, and reports whether it fired.
func fires(t *testing.T, store storage.Queryable, rule rulefmt.Rule) bool {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: parse})
	since := map[string]time.Time{} // pending alerts by their labels
	for at := start.Add(history); at.Sub(start) <= time.Hour; at = at.Add(scrapeInterval) {
		query, err := engine.NewInstantQuery(t.Context(), store, nil, rule.Expr, at)
		if err != nil {
			t.Fatalf("%s: %v", rule.Alert, err)
		}
		vector, err := query.Exec(t.Context()).Vector()
		if err != nil {
			t.Fatalf("%s: %v", rule.Alert, err)
		}
		active := map[string]bool{}
		for _, sample := range vector {
			key := sample.Metric.String()
			active[key] = true
			if _, ok := since[key]; !ok {
				since[key] = at
			}
			if at.Sub(since[key]) >= time.Duration(rule.For) {
				return true
			}
		}
		maps.DeleteFunc(since, func(key string, _ time.Time) bool { return !active[key] })
	}
	return false
}

// sample is one scraped value.
type sample struct {
	at    int64
	value float64
}

func (s sample) T() int64                    { return s.at }
func (sample) ST() int64                     { return 0 }
func (s sample) F() float64                  { return s.value }
func (sample) H() *histogram.Histogram       { return nil }
func (sample) FH() *histogram.FloatHistogram { return nil }
func (sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample         { return s }

// load makes a storage of series in the notation of promtool's tests.
func load(t *testing.T, series []string) storage.Queryable {
	t.Helper()
	var all []storage.Series
	for _, s := range series {
		metric, values, err := parse.ParseSeriesDesc(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		var samples []chunks.Sample
		for i, v := range values {
			if !v.Omitted {
				samples = append(samples, sample{start.Add(time.Duration(i) * scrapeInterval).UnixMilli(), v.Value})
			}
		}
		all = append(all, storage.NewListSeries(metric, samples))
	}
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			selected := &seriesSet{}
			for _, s := range all {
				if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Labels().Get(m.Name)) }) {
					selected.rest = append(selected.rest, s)
				}
			}
			return selected
		},
	}}
}

// seriesSet is a list of series.
type seriesSet struct {
	current storage.Series
	rest    []storage.Series
}

func (s *seriesSet) Next() bool {
	if len(s.rest) == 0 {
		return false
	}
	s.current, s.rest = s.rest[0], s.rest[1:]
	return true
}

func (s *seriesSet) At() storage.Series              { return s.current }
func (*seriesSet) Err() error                        { return nil }
func (*seriesSet) Warnings() annotations.Annotations { return nil }
