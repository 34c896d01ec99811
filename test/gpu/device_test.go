package gpu_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
)

const (
	i915   = "gpu.intel.com/i915"
	amdGPU = "amd.com/gpu"
)

// find makes every device healthy again.
func find(ctx context.Context) {
	GinkgoHelper()
	run(ctx, "go", "run", "./test/cluster", "find", node(ctx), i915+"/gpu-0", i915+"/gpu-1")
}

func node(ctx context.Context) string {
	GinkgoHelper()
	return do(ctx, "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
}

func allocatable(ctx context.Context, resource string) string {
	GinkgoHelper()
	n := read[corev1.Node](ctx, "node/"+node(ctx))
	q := n.Status.Allocatable[corev1.ResourceName(resource)]
	return q.String()
}

// holders are the pods of a class whose containers run, and so have a device.
func holders(ctx context.Context, class string) (found []string) {
	for _, p := range workers(ctx, class, "") {
		for _, s := range p.Status.ContainerStatuses {
			if s.State.Running != nil {
				found = append(found, p.Name)
			}
		}
	}
	return found
}

func onlyDevice() {
	It("is waited for, not asked of Kubernetes, by who could have a warm slot", func(ctx SpecContext) {
		Expect(allocatable(ctx, amdGPU)).To(Equal("1"), "of `go run ./test/cluster up`")
		begin(ctx, long("held-1", amd), long("held-2", amd))
		runs(ctx, "held-1")
		runs(ctx, "held-2")
		begin(ctx, long("third", amd))
		waits(ctx, "third", "2 of 2 warm slots taken", "its last Job did not start")
		Eventually(func() int { return len(workers(ctx, amd, "job")) }).WithContext(ctx).WithTimeout(soon).Should(BeZero(), "a Job that cannot start is withdrawn")
		id := results(ctx)["third"].id
		Expect(log(ctx)).To(ContainElement(And(HaveField("Session", id), HaveField("Message", "session is placed again"),
			HaveField("Error", And(ContainSubstring("the warm workers hold what a Job would need"), ContainSubstring(amdGPU))))))
		stop(ctx, "held-1")
		Expect(runs(ctx, "third")).To(And(HaveField("Placement", "warm"), HaveField("Class", amd)))
	}, NodeTimeout(specBound))

	It("passes from one pod to the next in a rollout under load, and never has two", func(ctx SpecContext) {
		before := workers(ctx, amd, "warm")[0].Name
		begin(ctx, long("rolled", amd))
		runs(ctx, "rolled")
		do(ctx, "rollout", "restart", "deployment/ffpod-"+amd)
		var load []string
		for i := range 3 {
			name := fmt.Sprintf("during-%d", i)
			load = append(load, name)
			begin(ctx, playback(name, amd, source(1, false)))
			for range 4 {
				Expect(len(holders(ctx, amd))).To(BeNumerically("<=", 1))
				time.Sleep(250 * time.Millisecond) // to look again
			}
		}
		Eventually(func() []string {
			now := holders(ctx, amd)
			Expect(len(now)).To(BeNumerically("<=", 1))
			return now
		}).WithContext(ctx).WithTimeout(soon).Should(And(HaveLen(1), Not(ContainElement(before))))
		all := end(ctx, append(load, "rolled")...)
		Expect(all["rolled"].code).NotTo(BeZero(), "its worker was deleted")
		for _, name := range load {
			if all[name].code == 0 {
				complete(ctx, name)
				Expect(audit(ctx, all[name]).Class).To(Equal(amd))
				continue
			}
			Expect(all[name].stderr).NotTo(BeEmpty(), "what fails says so")
		}
		ready(ctx, amd)
		r := one(ctx, playback("after", amd, source(1, false)))
		Expect(r.code).To(BeZero(), r.stderr)
	}, NodeTimeout(specBound))
}

func lostDevice() {
	It("ends its sessions honestly, and its worker gets none until it is found", func(ctx SpecContext) {
		worker := workers(ctx, intel, "warm")[0].Name
		device := strings.TrimSpace(do(ctx, "exec", worker, "-c", "worker", "--", "printenv", "FFPOD_FAKE_GPU"))
		begin(ctx, long("victim", intel))
		Expect(runs(ctx, "victim").Pod).To(Equal(worker))

		run(ctx, "go", "run", "./test/cluster", "lose", node(ctx), i915+"/"+device)
		do(ctx, "exec", "deploy/ffpod-client", "--", "touch", "/cache/lost")
		r := end(ctx, "victim")["victim"]
		Expect(r.code).NotTo(BeZero())
		Expect(r.stderr).To(ContainSubstring("device lost (-13)"))
		Expect(audit(ctx, r)).To(And(HaveField("Exit", Not(Equal("0"))), HaveField("Worker", worker)))
		Expect(do(ctx, "exec", "deploy/ffpod-client", "--", "sh", "-c", "cat "+home+"/victim.m3u8; true")).NotTo(ContainSubstring("ENDLIST"))

		// The kubelet offers one device less, and leaves the pod that has the lost one alone.
		Eventually(func() string { return allocatable(ctx, i915) }).WithContext(ctx).WithTimeout(soon).Should(Equal("1"))
		Expect(holders(ctx, intel)).To(ContainElement(worker))

		short := 0
		last := func() *result {
			short++
			return one(ctx, playback(fmt.Sprintf("lost-%d", short), intel, source(1, false)).with("FFPOD_POLICY=warm", "FFPOD_WAIT=4s"))
		}
		Eventually(func(g Gomega) { // its trials run again within two minutes of the last ones
			r := last()
			Expect(r.code).NotTo(BeZero(), "on a device that is lost")
			g.Expect(r.stderr).To(And(ContainSubstring("class "+intel), ContainSubstring("device lost (-13)")))
			g.Expect(audit(ctx, r)).To(And(HaveField("Exit", "refused"), HaveField("Worker", "")))
		}).WithContext(ctx).WithTimeout(readyBound).WithPolling(2 * time.Second).Should(Succeed())

		do(ctx, "exec", "deploy/ffpod-client", "--", "rm", "/cache/lost")
		find(ctx)
		Eventually(func() string { return allocatable(ctx, i915) }).WithContext(ctx).WithTimeout(soon).Should(Equal("2"))
		Eventually(func(g Gomega) { // an operator says that it is mended; right after trials the worker refuses
			out, err := exec.CommandContext(ctx, program, "prove", "-n", namespace, "--class", intel).CombinedOutput()
			g.Expect(err).NotTo(HaveOccurred(), string(out))
			g.Expect(string(out)).To(ContainSubstring(worker + "  tries"))
		}).WithContext(ctx).WithTimeout(soon).Should(Succeed())
		Eventually(func() int { return last().code }).WithContext(ctx).WithTimeout(readyBound).WithPolling(2 * time.Second).Should(BeZero())
		Expect(workers(ctx, intel, "warm")[0].Name).To(Equal(worker), "the same worker")
	}, NodeTimeout(2*specBound))
}
