using System.Reflection.Metadata;
using System.Reflection.PortableExecutable;

namespace Vmm.Cli.Tests;

/// <summary>Calls of libc are the business of one assembly.</summary>
public sealed class PackageBorderTests
{
    [Fact]
    public void Only_Vmm_Interop_refers_to_the_libc_package()
    {
        string[] ours = [.. Directory.GetFiles(AppContext.BaseDirectory, "*.dll")
            .Where(f => Path.GetFileName(f).StartsWith("vmm", StringComparison.OrdinalIgnoreCase))];
        Assert.Contains(ours, f => string.Equals(Path.GetFileName(f), "vmmd.dll", StringComparison.Ordinal));
        string[] those = [.. ours.Where(Refers).Select(f => Path.GetFileName(f)!)];
        Assert.Equal(["Vmm.Interop.dll"], those);
    }

    private static bool Refers(string assembly)
    {
        using PEReader file = new(File.OpenRead(assembly));
        MetadataReader reader = file.GetMetadataReader();
        return reader.AssemblyReferences.Any(
            r => string.Equals(reader.GetString(reader.GetAssemblyReference(r).Name), "Tmds.LibC", StringComparison.Ordinal));
    }
}
