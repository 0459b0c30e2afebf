using System.Diagnostics;

namespace Vmm.Cpu.Tests;

public sealed class KvmSurveyTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vmm-survey-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_survey_comes_back_from_its_JSON()
    {
        CpuDescription processor =
            new() { Model = "host", Leaves = [new CpuidLeaf(0, 0, false, 1, 2, 3, 4)], Msrs = [new CpuMsr(0x10a, 5)] };
        KvmSurvey read = KvmSurvey.Read(new KvmSurvey("hardware", null, processor).ToJson());
        Assert.Equal("hardware", read.Kind);
        Assert.Equal(CpuDescriptionJson.Write(processor), CpuDescriptionJson.Write(read.Processor!));
        Assert.Equal(KvmSurvey.None("no \"module\""), KvmSurvey.Read(KvmSurvey.None("no \"module\"").ToJson()));
        Assert.Empty(KvmSurvey.None("").CpuModels);
    }

    [Theory]
    [InlineData("")]
    [InlineData("{}")]
    [InlineData("[]")]
    [InlineData("{\"kvm\":\"hardware\",\"cpu\":null}")]
    [InlineData("{\"kvm\":\"magic\",\"kvmProblem\":null,\"cpu\":null}")]
    [InlineData("{\"kvm\":5,\"kvmProblem\":null,\"cpu\":null}")]
    public void What_is_no_survey_is_refused(string text) => Assert.Throws<InvalidDataException>(() => KvmSurvey.Read(text));

    [Theory]
    [InlineData("exit 3", "no survey")]
    [InlineData("echo '{\"kvm\":'", "no survey")]
    [InlineData("yes", "too much")]
    [InlineData("exec sleep 600", "did not tell within")]
    public void A_program_that_does_not_tell_is_an_answer_with_a_reason_in_time(string script, string reason)
    {
        string program = Path.Combine(_folder, "program");
        File.WriteAllText(program, "#!/bin/sh\n" + script + "\n");
        File.SetUnixFileMode(program, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        long begin = Stopwatch.GetTimestamp();
        KvmSurvey survey = SurveyProgram.Ask(program, TimeSpan.FromSeconds(1));
        Assert.Equal("none", survey.Kind);
        Assert.Contains(reason, survey.Problem, StringComparison.Ordinal);
        Assert.True(Stopwatch.GetElapsedTime(begin) < TimeSpan.FromSeconds(120));
    }

    [Fact]
    public void A_program_that_is_missing_is_named()
    {
        KvmSurvey survey = SurveyProgram.Ask(Path.Combine(_folder, "missing"), TimeSpan.FromSeconds(1));
        Assert.Equal("none", survey.Kind);
        Assert.Contains("missing", survey.Problem, StringComparison.Ordinal);
    }
}
