using Xunit;

namespace Vmm.Testing;

/// <summary>A test that needs a KVM device of any kind; skipped, with the reason, where there is none that can be opened.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class KvmFactAttribute : FactAttribute
{
    private static readonly string? WhyNot = Probe();

    public KvmFactAttribute() => Skip = WhyNot;

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
}
