using Xunit;

namespace Vmm.Testing;

/// <summary>A test that needs a KVM device of any kind; skipped, with the reason, where there is none that can be opened.</summary>
[AttributeUsage(AttributeTargets.Method)]
public class KvmFactAttribute : FactAttribute
{
    private static readonly string? NoKvm = Probe();
    private static readonly bool CpuVirtualizes = HasVirtualizationFlag();

    /// <summary>True for behaviour that only a KVM without VMX or SVM behind it shows.</summary>
    public bool OnlyEmulating { get; set; }

    /// <summary>True for what needs guest kernels at native speed.</summary>
    public bool OnlyHardware { get; set; }

    /// <summary>True for what only root may do.</summary>
    public bool NeedsRoot { get; set; }

    /// <summary>True for what pages guest memory.</summary>
    public bool NeedsPager { get; set; }

    public override string? Skip
    {
        get => NoKvm
            ?? (OnlyEmulating && CpuVirtualizes ? "this KVM has hardware behind it: nothing is emulated" : null)
            ?? (OnlyHardware && !CpuVirtualizes ? "this KVM only emulates kernel code" : null)
            ?? (NeedsRoot && !Environment.IsPrivilegedProcess ? "only root can do this" : null)
            ?? (NeedsPager ? PagerFactAttribute.WhyNot : null)
            ?? base.Skip;
        set => base.Skip = value;
    }

    private static string? Probe()
    {
        try
        {
            using FileStream device = new("/dev/kvm", FileMode.Open, FileAccess.ReadWrite);
            return null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return $"no usable /dev/kvm: {e.Message}";
        }
    }

    private static bool HasVirtualizationFlag() =>
        File.Exists("/proc/cpuinfo")
        && File.ReadAllText("/proc/cpuinfo").Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries).Any(f => f is "vmx" or "svm");
}
