using Vmm.Interop.Kvm;
namespace Vmm.Kvm.Tests;

public sealed class OpenErrorTests
{
    [Fact]
    public void Missing_device_says_which_file_and_what_to_do()
    {
        KvmUnavailableException e = Assert.Throws<KvmUnavailableException>(() => KvmSystem.Open("/nonexistent/kvm"));
        Assert.Equal(KvmUnavailableReason.Missing, e.Reason);
        Assert.Contains("/nonexistent/kvm does not exist", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_character_device_that_is_no_KVM_is_refused_by_name()
    {
        KvmUnavailableException e = Assert.Throws<KvmUnavailableException>(() => KvmSystem.Open("/dev/null"));
        Assert.Equal(KvmUnavailableReason.NotKvm, e.Reason);
        Assert.Contains("/dev/null is not a KVM device", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_plain_file_is_no_KVM()
    {
        string path = Path.GetTempFileName();
        try
        {
            Assert.Equal(KvmUnavailableReason.NotKvm, Assert.Throws<KvmUnavailableException>(() => KvmSystem.Open(path)).Reason);
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Fact]
    public void A_folder_cannot_be_opened() =>
        Assert.Equal(KvmUnavailableReason.OpenFailed, Assert.Throws<KvmUnavailableException>(() => KvmSystem.Open("/proc")).Reason);
}
