namespace Vmm.Interop.Kvm;

/// <summary>Turns the answer of a KVM request into an error that names it.</summary>
public static class KvmRequestExtensions
{
    /// <summary>
    /// Returns an answer of 0 or more; a negative one is an errno. The request's name is looked up only then: it takes reflection.
    /// </summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public static int Check(this KvmRequest request, int answer) =>
        answer >= 0 ? answer : throw new KernelException(request.ToString(), -answer);

    /// <summary>The same for a request about one numbered thing, e.g. <c>KVM_GET_DIRTY_LOG slot 2</c>.</summary>
    /// <exception cref="KernelException">The kernel refused.</exception>
    public static int Check(this KvmRequest request, int answer, string thing, uint number) =>
        answer >= 0 ? answer : throw new KernelException($"{request} {thing} {number}", -answer);
}
