package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// explain writes down what the parts said since the strike of a bad scene.
func (g *stage) explain(ctx context.Context, sc Scene, struck time.Time) {
	var b strings.Builder
	fmt.Fprintf(&b, "scene %d, %s, struck at %s\n", sc.Number, sc.Fault, struck.UTC().Format(time.RFC3339Nano))
	for _, s := range sc.Sessions {
		fmt.Fprintf(&b, "%+v\n", s)
	}
	fmt.Fprintf(&b, "orphans %q\noverlaps %q\n", sc.Orphans, sc.Overlaps)
	list, err := g.world.set.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		fmt.Fprintln(&b, err)
	} else {
		for _, p := range list.Items {
			for _, previous := range []bool{true, false} {
				since := metav1.NewTime(struck.Add(-10 * time.Second))
				log, err := g.world.set.CoreV1().Pods(namespace).GetLogs(p.Name, &corev1.PodLogOptions{SinceTime: &since, Previous: previous}).DoRaw(ctx)
				if err == nil && len(log) > 0 {
					fmt.Fprintf(&b, "--- pod %s %s, previous container: %v\n%s", p.Name, p.UID, previous, log)
				}
			}
		}
	}
	if err := os.MkdirAll(g.logs, 0o755); err != nil {
		say("%v", err)
		return
	}
	path := filepath.Join(g.logs, fmt.Sprintf("%04d-%s.log", sc.Number, sc.Fault))
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		say("%v", err)
	}
}
