package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
)

// The volumes of the scheduler's pod that name its objects.
const (
	tlsVolume    = "tls"
	clientVolume = "client"
)

// Self is what the scheduler learns of its own install from its pod, so that no
// name has to be configured twice.
type Self struct {
	Namespace string
	Pod       string // "": this process runs in no pod
	Container string
	Labels    map[string]string
	Secret    string // of the volume tls
	ConfigMap string // of the volume client
}

// FindSelf reads the scheduler's own pod.
//
// kube: pods, get
func FindSelf(ctx context.Context, client kubernetes.Interface, namespace, pod string) (Self, error) {
	p, err := client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
	if err != nil {
		return Self{}, fmt.Errorf("read the own pod %s/%s: %w", namespace, pod, err)
	}
	self := Self{Namespace: namespace, Pod: pod, Labels: p.Labels}
	if len(p.Spec.Containers) > 0 {
		self.Container = p.Spec.Containers[0].Name
	}
	for _, v := range p.Spec.Volumes {
		switch v.Name {
		case tlsVolume:
			self.Secret = secretOf(v)
		case clientVolume:
			self.ConfigMap = configMapOf(v)
		}
	}
	if self.Secret == "" {
		return Self{}, fmt.Errorf("pod %s/%s has no volume %s of a Secret; add it, as kustomize/base does", namespace, pod, tlsVolume)
	}
	if self.ConfigMap == "" {
		return Self{}, fmt.Errorf("pod %s/%s has no volume %s of a ConfigMap; add it, as kustomize/base does", namespace, pod, clientVolume)
	}
	return self, nil
}

func secretOf(v corev1.Volume) string {
	if v.Secret != nil {
		return v.Secret.SecretName
	}
	if v.Projected != nil {
		for _, s := range v.Projected.Sources {
			if s.Secret != nil {
				return s.Secret.Name
			}
		}
	}
	return ""
}

func configMapOf(v corev1.Volume) string {
	if v.ConfigMap != nil {
		return v.ConfigMap.Name
	}
	if v.Projected != nil {
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				return s.ConfigMap.Name
			}
		}
	}
	return ""
}

// errNoService says that no Service selects the scheduler's pod.
var errNoService = errors.New("no Service with a port named grpc selects the scheduler's pod")

// address finds the Service in front of this pod.
//
// kube: services, list
func (s Self) address(ctx context.Context, client kubernetes.Interface) (string, error) {
	list, err := client.CoreV1().Services(s.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("list the Services of namespace %s: %w", s.Namespace, err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.Service) int { return cmp.Compare(a.Name, b.Name) })
	for _, svc := range list.Items {
		if len(svc.Spec.Selector) == 0 || !labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(s.Labels)) {
			continue
		}
		for _, port := range svc.Spec.Ports {
			if port.Name == "grpc" {
				return fmt.Sprintf("%s.%s.svc:%d", svc.Name, s.Namespace, port.Port), nil
			}
		}
	}
	return "", errNoService
}
