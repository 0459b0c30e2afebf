using Vmm.Interop.Kvm;
using Vmm.Cpu;
using Vmm.Interop;

namespace Vmm.Kvm;

/// <summary>Takes the <see cref="KvmSurvey"/> of this host.</summary>
public static class KvmSurveyor
{
    /// <summary>Opens KVM, finds out its kind (in a throw-away VM) and what it can show to guests. Never throws: no KVM is an
    /// answer.</summary>
    public static KvmSurvey Take()
    {
        try
        {
            using KvmSystem kvm = KvmSystem.Open();
            string kind = KvmKindProbe.Detect(kvm) == KvmKind.Hardware ? "hardware" : "emulating";
            return new KvmSurvey(kind, null, HostCpu.Describe(kvm));
        }
        catch (Exception cause) when (cause is KvmUnavailableException or KernelException)
        {
            return KvmSurvey.None(cause.Message);
        }
    }
}
