using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Vmm.Interop.Tests;

/// <summary>Builds the shim's C tests with the address and undefined-behaviour sanitizers, and runs them.</summary>
[Trait("Tier", "kvm")]
public sealed class NativeShimTests
{
    [Fact]
    public async Task Sanitized_C_tests_pass()
    {
        string shim = Path.GetFullPath(Path.Combine(Path.GetDirectoryName(ThisFile())!, "..", "..", "native-shim"));
        ProcessStartInfo start =
            new("make", ["-C", shim, "test"]) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true };
        using Process make = Process.Start(start)!;
        Task<string> output = make.StandardOutput.ReadToEndAsync();
        Task<string> errors = make.StandardError.ReadToEndAsync();
        using CancellationTokenSource deadline = new(TimeSpan.FromMinutes(3));
        try
        {
            await make.WaitForExitAsync(deadline.Token);
        }
        catch (OperationCanceledException)
        {
            make.Kill(entireProcessTree: true);
            Assert.Fail("the C tests did not finish in 180 s");
        }

        string said = await output + await errors;
        Assert.True(make.ExitCode == 0, said);
        Assert.True(said.Contains("PASSED", StringComparison.Ordinal) || said.Contains("SKIPPED", StringComparison.Ordinal), said);
    }

    private static string ThisFile([CallerFilePath] string path = "") => path;
}
