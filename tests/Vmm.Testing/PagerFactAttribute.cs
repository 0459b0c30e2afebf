using Vmm.Interop;
using Xunit;

namespace Vmm.Testing;

/// <summary>A test that pages memory of this process; skipped with the reason where the kernel or the user cannot.</summary>
public sealed class PagerFactAttribute : FactAttribute
{
    private static readonly string? s_missing = Try();

    public PagerFactAttribute() => Skip = s_missing;

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
