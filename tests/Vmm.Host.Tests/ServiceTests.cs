using Vmm.Testing;

namespace Vmm.Host.Tests;

/// <summary>
/// The package and vmmd under a systemd that is process 1 (tests/testhost/systemd); every step is checked in the test host, by systemctl
/// and vmmctl.
/// </summary>
[Trait("Tier", "host")]
public sealed class ServiceTests
{
    private const int Attempts = 3;

    [Fact]
    public void Vmmd_lives_as_a_service_from_the_installation_to_the_purge_while_its_VM_goes_on()
    {
        string root = Tree.Root;
        for (int attempt = 1; ; attempt++)
        {
            // A check that fails ends the script with 1, which throws here; the emulated machine alone is given another try.
            (int status, string said) = MatrixRun.Shell(root, 1200, "tests/testhost/systemd");
            if (status != MatrixRun.HostFailed || attempt == Attempts)
            {
                Assert.True(status == 0, said);
                string[] steps =
                [
                    "installed", "units verified", "started by its socket", "fully confined", "restarted", "ended by the watchdog",
                    "started again by a request", "upgraded", "journal", "ends when the host goes down", "purged"
                ];
                Assert.All(steps, step => Assert.Matches($@"(?m)^ok \(\d+ s\): .*{step}", said));
                Console.WriteLine(said);
                return;
            }

            Console.WriteLine($"systemd: the test host failed by itself, attempt {attempt}");
        }
    }
}
