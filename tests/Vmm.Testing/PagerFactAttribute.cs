using Vmm.Interop;
using Xunit;

namespace Vmm.Testing;

/// <summary>A test that pages memory of this process; skipped with the reason where the kernel or the user cannot.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class PagerFactAttribute : FactAttribute
{
    /// <summary>Why nothing can be paged here; null when it can.</summary>
    public static string? WhyNot { get; } = Try();

    public override string? Skip
    {
        get => WhyNot ?? base.Skip;
        set => base.Skip = value;
    }

    private static string? Try()
    {
        try
        {
            using FileDescriptorHandle device = UserfaultDevice.Open();
            Userfault.Open(device).Dispose();
            return null;
        }
        catch (KernelException cause)
        {
            return cause.Message;
        }
    }
}
