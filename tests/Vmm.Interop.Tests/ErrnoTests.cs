using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using Tmds.Linux;
using Vmm.Testing;

namespace Vmm.Interop.Tests;

/// <summary>
/// The numbers that this project writes down itself equal those of the package and of the system's headers, and nobody else sees the
/// package.
/// </summary>
public sealed class ErrnoTests
{
    [Fact]
    public void Error_numbers_equal_libc()
    {
        FieldInfo[] numbers = typeof(Errno).GetFields(BindingFlags.Public | BindingFlags.Static);
        Assert.NotEmpty(numbers);
        Assert.All(numbers, number => Assert.Equal(typeof(LibC).GetProperty(number.Name)!.GetValue(null), number.GetRawConstantValue()));
    }

    [Fact]
    public void System_call_numbers_equal_the_headers()
    {
        FieldInfo[] numbers = typeof(EventFd).Assembly
            .GetType("Vmm.Interop.Libc.SyscallNumber", throwOnError: true)!
            .GetFields(BindingFlags.NonPublic | BindingFlags.Static);
        Assert.NotEmpty(numbers);
        string asserts = string.Concat(numbers.Select(
            n => string.Create(CultureInfo.InvariantCulture, $"_Static_assert({n.Name} == {n.GetRawConstantValue()}, \"{n.Name}\");\n")));
        ProcessStartInfo start = new("gcc", ["-x", "c", "-fsyntax-only", "-"])
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardError = true
        };
        using Process gcc = Process.Start(start)!;
        gcc.StandardInput.Write("#include <sys/syscall.h>\n" + asserts);
        gcc.StandardInput.Close();
        string said = gcc.StandardError.ReadToEnd();
        gcc.WaitForExit();
        Assert.True(gcc.ExitCode == 0, said);
    }

    [Fact]
    public void No_type_of_the_package_is_visible_outside()
    {
        Assembly package = typeof(LibC).Assembly;
        List<string> seen = [];
        foreach (Type type in typeof(EventFd).Assembly.GetExportedTypes())
        {
            foreach (MemberInfo member in type.GetMembers(
                BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly))
            {
                Type[] used = member switch
                {
                    MethodBase { IsPublic: true } or MethodBase { IsFamily: true } =>
                        [.. ((MethodBase)member).GetParameters().Select(p => p.ParameterType),
                            (member as MethodInfo)?.ReturnType ?? typeof(void)],
                    FieldInfo { IsPublic: true } or FieldInfo { IsFamily: true } => [((FieldInfo)member).FieldType],
                    _ => [],
                };
                seen.AddRange(used.Where(u => u.Assembly == package || u.GetElementType()?.Assembly == package
                    || u.GenericTypeArguments.Any(a => a.Assembly == package))
                    .Select(u => $"{type}.{member.Name}: {u}"));
            }
        }

        Assert.Empty(seen);
    }

    [Fact]
    public void No_source_outside_names_the_package()
    {
        string[] files = [.. new[] { "*.cs", "*.csproj" }
            .SelectMany(kind => Directory.GetFiles(Path.Combine(Tree.Root, "src"), kind, SearchOption.AllDirectories))
            .Where(f => !f.Contains("/obj/", StringComparison.Ordinal))];
        Assert.Contains(files, f => f.Contains("/Vmm.Interop/", StringComparison.Ordinal)
            && File.ReadAllText(f).Contains("Tmds.Li", StringComparison.Ordinal));
        Assert.DoesNotContain(files, f => !f.Contains("/Vmm.Interop/", StringComparison.Ordinal)
            && File.ReadAllText(f).Contains("Tmds.Li", StringComparison.Ordinal));
    }
}
