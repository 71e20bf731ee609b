//go:build unix

package main

import (
	"math"
	"slices"
)

// A summary is what is told about several measurements of one thing.
type summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// summarize returns the median and the extremes of values; NaN, which means
// not measured, is left out. Without values everything is NaN.
func summarize(values []float64) summary {
	values = slices.DeleteFunc(slices.Clone(values), math.IsNaN)
	if len(values) == 0 {
		return summary{math.NaN(), math.NaN(), math.NaN()}
	}
	return summary{quantile(values, 0.5), slices.Min(values), slices.Max(values)}
}

// quantile returns the q-th quantile of values, 0 ≤ q ≤ 1, linear between the
// two nearest; of no values it is NaN. It does not change values.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low == len(sorted)-1 {
		return sorted[low]
	}
	part := at - float64(low)
	return sorted[low]*(1-part) + sorted[low+1]*part
}

// ratios divides values by base, round by round.
func ratios(values, base []float64) []float64 {
	n := min(len(values), len(base))
	quotients := make([]float64, n)
	for i := range quotients {
		quotients[i] = values[i] / base[i]
	}
	return quotients
}
