# shellcheck shell=bash
# What the host's KVM does, kept in its trace buffer until a guest's processor shuts down: AMD's KVM resets such a processor before anybody can look at it, but the trace has
# where it was, and the exits, faults and interrupts before.
tracing=/sys/kernel/tracing
start_trace() {
    [ -d $tracing/events ] || mount -t tracefs tracefs $tracing || return 0
    echo 1024 >$tracing/buffer_size_kb
    local event
    for event in kvm_exit kvm_inj_virq kvm_inj_exception kvm_page_fault; do
        [ ! -e $tracing/events/kvm/$event ] || echo 1 >$tracing/events/kvm/$event/enable
    done
    # SVM_EXIT_SHUTDOWN
    echo 'traceoff if exit_reason == 0x7f' >$tracing/events/kvm/kvm_exit/trigger
}
# show_trace [LINES]: what led to the first shutdown, once there was one; then the trace goes on.
show_trace() {
    [ "$(cat $tracing/tracing_on 2>/dev/null)" = 0 ] || return 0
    echo "--- trace of KVM up to the shutdown"
    tail -"${1:-80}" $tracing/trace
    : >$tracing/trace
    echo 1 >$tracing/tracing_on
}
